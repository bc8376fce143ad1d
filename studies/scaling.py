"""Print the tables of docs/scaling.md: what more processes cost, by arithmetic. All times are lower bounds.

example: python tools/scaling.py
         python tools/scaling.py --archs A0 --batch-size 16 --speed 62.4 --gpus 2 8 64 --networks 1 10
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmrepvgg.commands.arguments import positive_int
from mmrepvgg.tables import format_table

# ImageNet-1k's training set: images, and their mean size in bytes (138 GB in all).
IMAGES, IMAGE_BYTES = 1_281_167, 108_000
# A step computes as much as three forward passes, of which backward is two; a multiply-add is two operations.
FLOPS_A_MAC = 6
BACKWARD = 2 / 3
# torch's default size of the gradients that DDP exchanges at once
BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True)
class Model:
    """What a training of a model moves.

    Attributes:
        name: Name of the arch.
        params: Number of parameters in train form.
        macs: Multiply-adds of a forward pass for an image of 224 x 224 pixels.
        norms: Number of batch norms.
    """

    name: str
    params: int
    macs: int
    norms: int

    @property
    def gradient_bytes(self) -> int:
        return 4 * self.params

    @property
    def checkpoint_bytes(self) -> int:
        """Weights and momenta."""
        return 8 * self.params

    def speed(self, tflops: float) -> float:
        """Images a second in training, where that many operations are computed."""
        return tflops * 1e12 / (FLOPS_A_MAC * self.macs)


def measure_model(arch: str) -> Model:
    """Count a model's parts. It has shapes and no numbers, so that this takes no time."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from mmrepvgg import load_config
    from mmrepvgg.models.building import build_model
    from mmrepvgg.reparam.cost import measure_cost

    cfg = load_config('repvgg-a0_8xb32', [f'model.backbone.arch={arch}'])
    total = measure_cost(cfg, deploy=False)[-1]
    with torch.device('meta'):
        norms = sum(isinstance(module, _BatchNorm) for module in build_model(cfg, deploy=False).modules())
    return Model(arch, total.params, total.macs, norms)


def ring_bytes(gradient_bytes: float, num: int) -> float:
    """Bytes that each process sends, and receives, in a ring all-reduce."""
    return 2 * (num - 1) / num * gradient_bytes


def step_seconds(compute: float, exchange: float) -> float:
    """Time of a step whose exchange of gradients runs beside the backward pass and lasts longer, or not."""
    return compute * (1 - BACKWARD) + max(compute * BACKWARD, exchange)


def tree_latency(num: int, hop: float) -> float:
    """Seconds of an all-reduce of few bytes, up a tree and down again. A ring would take 2 (num - 1) hops."""
    return 2 * math.ceil(math.log2(num)) * hop


def render_gradients(models: Sequence[Model], gpus: Sequence[int], networks: Sequence[float]) -> str:
    """What a step sends, and how long the largest number of processes takes for it on each network."""
    most = max(gpus)
    head = ('arch', 'parameters, M', 'gradients, MB', 'buckets', 'GMACs', 'norms', f'sent at {most}, MB')
    rows = [
        (
            model.name,
            f'{model.params / 1e6:.2f}',
            f'{model.gradient_bytes / 1e6:.1f}',
            math.ceil(model.gradient_bytes / BUCKET_BYTES),
            f'{model.macs / 1e9:.2f}',
            model.norms,
            f'{ring_bytes(model.gradient_bytes, most) / 1e6:.1f}',
            *(f'{8 * ring_bytes(model.gradient_bytes, most) / 1e6 / network:.1f}' for network in networks),
        )
        for model in models
    ]
    return format_table((*head, *(f'ms at {network:g} Gbit/s' for network in networks)), rows)


def render_efficiency(
    models: Sequence[Model], speeds: Sequence[float], batch_size: int, num: int, networks: Sequence[float]
) -> str:
    """The part of the speed that is left, by network, and the bandwidth with which nothing is lost."""
    rows = []
    for model, speed in zip(models, speeds, strict=True):
        compute = batch_size / speed
        sent = 8e-9 * ring_bytes(model.gradient_bytes, num)
        efficiencies = (f'{compute / step_seconds(compute, sent / network):.0%}' for network in networks)
        rows.append(
            (model.name, f'{speed:.4g}', f'{compute * 1e3:.4g}', f'{sent / (compute * BACKWARD):.3g}', *efficiencies)
        )
    head = ('arch', 'img/s', 'step, ms', 'nothing lost from, Gbit/s')
    return format_table((*head, *(f'at {network:g} Gbit/s' for network in networks)), rows)


def render_sizes(
    model: Model, speed: float, batch_size: int, gpus: Sequence[int], hop: float, disk: float, decoded: float
) -> str:
    """What grows with the number of processes: the batch, the data, the latencies, the writing by one process."""
    rows = []
    for num in gpus:
        epoch = IMAGES / (speed * num)
        rows.append(
            (
                num,
                num * batch_size,
                f'{0.1 * num * batch_size / 256:.3g}',
                IMAGES // (num * batch_size),
                f'{epoch:.3g}',
                f'{speed * num / 1e3:.3g}',
                f'{speed * num * IMAGE_BYTES / 1e9:.3g}',
                f'{math.ceil(speed / decoded)}',
                f'{1e3 * math.ceil(model.gradient_bytes / BUCKET_BYTES) * tree_latency(num, hop):.2f}',
                f'{1e3 * 2 * model.norms * tree_latency(num, hop):.2f}',
                f'{model.checkpoint_bytes / disk / epoch:.1%}',
            )
        )
    head = ('processes', 'batch', 'learning rate', 'steps an epoch', 'epoch, s', 'files, k/s', 'data, GB/s')
    more = ('cores each', 'buckets, ms', 'SyncBN, ms', 'checkpoint of an epoch')
    return format_table((*head, *more), rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options: list[tuple[str, Any, Any, str]] = [
        ('--batch-size', positive_int, 32, 'images of a process and step'),
        ('--tflops', float, 50.0, 'operations of a training step that a GPU computes in a second, in 10^12'),
        ('--speed', float, None, 'measured images a second of one process, for one arch, in place of --tflops'),
        ('--hop-us', float, 10.0, 'latency of one message in microseconds'),
        ('--disk-gb', float, 1.0, 'GB a second with which one process writes a checkpoint'),
        ('--decoded', float, 1180.0, 'images a second that one core reads, decodes and augments'),
    ]
    for name, kind, default, help in options:
        parser.add_argument(name, type=kind, default=default, help=f'{help} (default: {default})')
    parser.add_argument('--archs', nargs='+', default=['A0', 'A1', 'A2', 'B0', 'B1', 'B2', 'B3'], metavar='ARCH')
    parser.add_argument('--gpus', nargs='+', type=positive_int, default=[8, 64, 256, 1000], metavar='N')
    parser.add_argument('--networks', nargs='+', type=float, default=[10, 100, 400], metavar='GBIT')


def run(args: argparse.Namespace) -> None:
    print(render(args))


def render(args: argparse.Namespace) -> str:
    """All tables, each after a line that says what it is."""
    if args.speed is not None and len(args.archs) > 1:
        raise ValueError(f'`speed` is of one arch, got {len(args.archs)} in `archs`')
    models = [measure_model(arch) for arch in args.archs]
    speeds = [args.speed or model.speed(args.tflops) for model in models]
    most, per_gpu = max(args.gpus), f'{args.batch_size} images each'
    where = f'{args.speed:g} img/s measured' if args.speed else f'{args.tflops:g} TFLOP/s a GPU assumed'
    parts = [
        f'Gradients of a step (fp32), and their ring all-reduce over {most} processes:',
        render_gradients(models, args.gpus, args.networks),
        f'Speed that {most} processes keep, {per_gpu}, {where}:',
        render_efficiency(models, speeds, args.batch_size, most, args.networks),
    ]
    for model, speed in ((models[0], speeds[0]), (models[-1], speeds[-1]))[: len(models)]:
        parts += [
            f'{model.name} by number of processes, {speed:.4g} img/s each, {per_gpu}:',
            render_sizes(model, speed, args.batch_size, args.gpus, args.hop_us / 1e6, args.disk_gb * 1e9, args.decoded),
        ]
    return '\n\n'.join(parts)

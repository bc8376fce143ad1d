"""The cost of a model: parameters, multiply-adds, activations."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .backbone import RepVGG
from .building import build_model
from .heads import AuxiliaryClsHead


@dataclass(frozen=True)
class Cost:
    """The cost of one part of a model.

    Attributes:
        name: Name of the part, for example ``'backbone.stage_1'``.
        params: Number of parameters.
        macs: Number of multiply-adds of its convolutions and linear layers for one image. Batch norms, activations,
            additions and pooling are not counted.
        activations: Number of outputs of its convolutions and linear layers for one image.
    """

    name: str
    params: int
    macs: int
    activations: int


def measure_cost(cfg: Config, deploy: bool, shape: tuple[int, int] = (224, 224)) -> list[Cost]:
    """Measure the model of ``cfg`` in one form, part by part, for the forward pass of one image.

    The model has shapes and no numbers, so that a large arch takes as long as a small one. In train form the auxiliary
    classifiers are counted, too.

    Args:
        cfg: The config.
        deploy: Measure the deploy form instead of the train form.
        shape: Height and width of the image in pixels.

    Returns:
        list[Cost]: The stem, each stage and the other parts of the model, and ``'total'`` at the end.

    Raises:
        ValueError: If the shape is not two positive numbers.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'shape must be two positive numbers, height and width in pixels, got {shape}')
    with torch.device('meta'):
        model = build_model(cfg, deploy)
        in_channels = next((module.in_channels for module in model.modules() if isinstance(module, RepVGG)), 3)
        image = torch.empty(1, in_channels, *shape)
    activations: dict[str, int] = {}
    _watch(model, activations)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)

    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    costs = []
    for name, part in _split(model):
        layers = [layer for layer in activations if f'{layer}.'.startswith(f'{name}.')]
        macs = sum(flops[f'{type(model).__name__}.{layer}'] for layer in layers) // 2
        costs.append(Cost(name, count_params(part), macs, sum(activations[layer] for layer in layers)))
    total = Cost('total', count_params(model), counter.get_total_flops() // 2, sum(activations.values()))
    return [*(cost for cost in costs if cost.params), total]


def count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, inputs: Tensor) -> int:
    """Number of multiply-adds of the convolutions and linear layers: half of the FLOPs that torch counts."""
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    return counter.get_total_flops() // 2


def _split(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model; a RepVGG in it counts as its own parts."""
    for name, part in model.named_children():
        if isinstance(part, RepVGG):
            yield from ((f'{name}.{child}', module) for child, module in part.named_children())
        else:
            yield name, part


def _watch(model: nn.Module, activations: dict[str, int]) -> None:
    """Let each forward pass fill ``activations``, by the names of the layers, and run the auxiliary classifiers."""

    def compute_aux_scores(head: AuxiliaryClsHead, inputs: tuple) -> None:
        head.compute_aux_scores(*inputs)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: activations.update({name: output.numel()})
            )
        elif isinstance(module, AuxiliaryClsHead):
            module.register_forward_pre_hook(compute_aux_scores)

"""What int8 will do to a model, layer by layer and end to end, found by simulation."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ...checkpoints.loading import load_weights
from ...checkpoints.reading import read_checkpoint
from ...data.samples import iterate_samples
from ...models.backbone import RepVGG
from ...models.blocks import RepVGGBlock
from ...models.building import build_model
from ...models.norm_scales import clip_norm_scales
from ...progress import track
from ...reparam.switch import reparameterize
from ..settings import GRANULARITIES
from ..trained import find_training
from .noise import measure_logits_noise, measure_output_noise, measure_weight_noise
from .observe import describe_kernel, describe_norms, observe_activations
from .points import find_layers
from .results import CLIP_SCALES, Analysis, Layer, Outcome
from .simulation import simulate
from .verdict import find_worst, predict

# Images on which each layer is looked at alone: their number decides the time, and ratios of powers need few.
NUM_LAYER_IMAGES = 32

Batch = tuple[Tensor, Tensor | None]


def analyze(
    cfg: Config,
    checkpoint: str | Path,
    *,
    num_samples: int = 512,
    num_calibration: int = 128,
    seed: int = 0,
    split: str = 'test',
    calibration_split: str = 'train',
    batch_size: int = 16,
    ema: bool = False,
) -> Analysis:
    """Predict what static int8 quantization will do to a checkpoint.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: Weights of the classifier, in either form; the train form is switched in memory.
        num_samples: Images on which accuracy and agreement are found.
        num_calibration: Images that give the ranges of the activations.
        seed: Of the draws.
        split: ``'train'`` or ``'test'``: where the samples come from.
        calibration_split: Likewise of the calibration images.
        batch_size: Images in a batch; changes nothing but memory and time.
        ema: Analyze the averaged weights.

    Raises:
        ValueError: If the model is no classifier on a RepVGG or was trained for int8, or the data can't be used.
        CheckpointError: If the checkpoint can't be read, or does not fit.
    """
    for name in (split, calibration_split):
        if cfg.get(f'{name}_dataloader') is None:
            raise ValueError(f'the config must have a {name}_dataloader, from whose data set images are drawn')
    weights = read_checkpoint(checkpoint, ema)
    model: Any = build_model(cfg, deploy=weights.is_deploy_form)
    _check_classifier(model)
    load_weights(model, weights)
    if find_training(model) is not None:
        raise ValueError(
            f'{checkpoint} is of quantization-aware training: its int8 file has the ranges of training, and there is '
            'nothing to predict; tools/quantize.py writes and measures it'
        )
    calibration = list(iterate_samples(cfg, calibration_split, num_calibration, seed=seed, batch_size=batch_size))
    samples = list(iterate_samples(cfg, split, num_samples, seed=seed, batch_size=batch_size))
    return analyze_model(model, [images for images, _ in calibration], samples)


@torch.no_grad()
def analyze_model(model: nn.Module, calibration: Sequence[Tensor], samples: Sequence[Batch]) -> Analysis:
    """As :func:`analyze`, of a model in memory.

    Args:
        model: A classifier in either form and eval mode, on the CPU; it is not changed.
        calibration: Images ``(N, C, H, W)`` as the pipeline gives them, before the data preprocessor.
        samples: The same with labels ``(N,)``, or None for no labels.

    Raises:
        ValueError: If the model is no classifier on a RepVGG, if there is no image, or activations are not finite.
    """
    _check_classifier(model)
    if not samples:
        raise ValueError('there must be at least one batch of samples')
    norms = describe_norms(model)
    deployed = reparameterize(model)
    simulation = _Simulation(deployed, calibration, samples)
    layers = simulation.describe_layers(norms)
    outcomes = [
        simulation.run(granularity, weights=weights, activations=activations)
        for weights, activations in ((True, True), (True, False))
        for granularity in GRANULARITIES
    ]
    # the granularity is the weights'
    outcomes.append(simulation.run('per-tensor', weights=False))
    if predict(outcomes[0]).level != 'safe':
        outcomes.append(simulation.run('per-tensor', kept=tuple(layer.name for layer in find_worst(layers))))
        if any(isinstance(module, RepVGGBlock) and not module.deploy for module in model.modules()):
            clipped = copy.deepcopy(model)
            clip_norm_scales(clipped, CLIP_SCALES)
            # set against the model as it was trained, not against itself
            limited = _Simulation(reparameterize(clipped, inplace=True), calibration, samples, simulation.logits)
            outcomes.append(replace(limited.run('per-tensor'), clip_scales=CLIP_SCALES))
    return Analysis(
        layers,
        tuple(outcomes),
        simulation.accuracy,
        num_classes=simulation.logits.shape[1],
        num_images=len(simulation.logits),
        num_calibration=sum(map(len, calibration)),
        was_switched=bool(norms),
    )


class _Simulation:
    """A model in deploy form with its ranges, its samples, and what float32 says about them (default: its own)."""

    def __init__(
        self,
        model: nn.Module,
        calibration: Iterable[Tensor],
        samples: Sequence[Batch],
        logits: Tensor | None = None,
    ):
        self.model = model
        self.batches = [images for images, _ in samples]
        labels = [label for _, label in samples if label is not None]
        self.labels = torch.cat(labels) if len(labels) == len(samples) else None
        self.ranges = observe_activations(
            model, (self._prepare(images) for images in track(list(calibration), 'observing'))
        )
        if logits is None:
            logits = torch.cat([model(self._prepare(images)) for images in track(self.batches, 'float32')])
        self.logits = logits
        self.accuracy = None if self.labels is None else _compute_accuracy(self.logits, self.labels)

    def describe_layers(self, norms: dict[str, tuple]) -> tuple[Layer, ...]:
        images = torch.cat([self._prepare(batch) for batch in self._take_few()])
        batches = images.split(len(self.batches[0]))
        expected = self.logits[: len(images)]
        snr = measure_output_noise(self.model, batches, self.ranges)
        modules = find_layers(self.model)
        layers = []
        names = [name for name in self.ranges if name in modules]  # in the order of computation
        for name in track(names, 'layer by layer'):
            with simulate(self.model, self.ranges, 'per-tensor', layers=[name]):
                logits = torch.cat([self.model(batch) for batch in batches])
            layers.append(
                Layer(
                    name,
                    describe_kernel(modules[name].weight),
                    self.ranges[name],
                    measure_weight_noise(modules[name].weight),
                    snr[name],
                    measure_logits_noise(expected, logits),
                    norms.get(name, ()),
                )
            )
        return tuple(layers)

    def run(
        self, granularity: str, *, weights: bool = True, activations: bool = True, kept: tuple[str, ...] = ()
    ) -> Outcome:
        title = f'int8 {granularity}'
        with simulate(self.model, self.ranges, granularity, weights=weights, activations=activations, kept=kept):
            logits = torch.cat([self.model(self._prepare(images)) for images in track(self.batches, title)])
        # without labels, float32 is taken for right
        labels = self.logits.argmax(1) if self.labels is None else self.labels
        before, after = self.logits.argmax(1) == labels, logits.argmax(1) == labels
        return Outcome(
            granularity,
            weights,
            activations,
            kept,
            num_images=len(logits),
            num_agreeing=int((logits.argmax(1) == self.logits.argmax(1)).sum()),
            num_lost=int((before & ~after).sum()),
            num_gained=int((after & ~before).sum()),
            accuracy=None if self.labels is None else _compute_accuracy(logits, self.labels),
            logits_snr=measure_logits_noise(self.logits, logits),
        )

    def _prepare(self, images: Tensor) -> Tensor:
        model: Any = self.model
        return model.data_preprocessor(dict(inputs=images))['inputs']

    def _take_few(self) -> list[Tensor]:
        few, left = [], NUM_LAYER_IMAGES
        for images in self.batches:
            if left <= 0:
                break
            few.append(images[:left])
            left -= len(images)
        return few


def _compute_accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def _check_classifier(model: Any) -> None:
    has_backbone = any(isinstance(module, RepVGG) for module in model.modules())
    if not has_backbone or not getattr(model, 'with_head', False) or not hasattr(model.head, 'pre_logits'):
        raise ValueError(
            f'the model must be a classifier on a RepVGG of mmrepvgg, got {type(model).__name__}; give a config whose '
            "model is an ImageClassifier with backbone type='mmrepvgg.RepVGG'"
        )
    if getattr(model, 'with_neck', False) and len(model.backbone.out_indices) > 1:
        raise ValueError(
            f'the backbone must have one output to be analyzed, got out_indices={model.backbone.out_indices}; leave '
            'the others out, the head takes the last one only'
        )

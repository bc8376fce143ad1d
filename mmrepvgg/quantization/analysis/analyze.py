"""The analysis of a model by simulated int8, for each layer and for the whole model."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ...checkpoints.loading import load_weights
from ...checkpoints.reading import read_checkpoint
from ...data.classes import get_trained_classes, require_single_label
from ...data.samples import iterate_samples
from ...equalization.equalize import NothingToRescaleError, equalize
from ...measures.accuracy import measure_percent
from ...models.building import build_model
from ...models.fake_quant_settings import GRANULARITIES
from ...progress import track
from ...reparam.switch import reparameterize
from ...runtimes.prepared import normalise
from ..rounding import NUM_IMAGES, round_weights
from ..trained import find_training
from .noise import measure_logits_noise, measure_output_noise, measure_weight_noise
from .observe import describe_kernel, describe_norms, observe_activations
from .points import find_layers
from .results import TREATMENTS, Activations, Analysis, Layer, Norm, Outcome
from .simulation import simulate
from .verdict import find_worst, predict

# Number of images on which each layer is simulated alone. It decides the time, and ratios of powers need few images.
NUM_LAYER_IMAGES = 32

Batch = tuple[Tensor, Tensor | None]
Ranges = Mapping[str, Activations]


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
        num_samples: Number of images on which accuracy and agreement are measured.
        num_calibration: Number of images on which the ranges of the activations are measured.
        seed: Seed of the draw of both.
        split: Split of the samples, ``'train'`` or ``'test'``.
        calibration_split: Split of the calibration images, ``'train'`` or ``'test'``.
        batch_size: Number of images in a batch. It changes only memory and time.
        ema: Whether the averaged weights are analyzed.

    Raises:
        ValueError: If the model is no image classifier, gives an image several labels or was trained for int8; or
            if the data can't be used.
        CheckpointError: If the checkpoint can't be read, or does not fit.
    """
    require_single_label(cfg)
    weights = read_checkpoint(checkpoint, ema)
    model: Any = build_model(cfg, deploy=weights.is_deploy_form)
    _check_classifier(model)
    load_weights(model, weights)
    if find_training(model) is not None:
        raise ValueError(
            f'{checkpoint} is of quantization-aware training: its int8 file has the ranges of training, so there is '
            'nothing to predict; write and measure the file with `quantize_model`'
        )
    calibration = list(iterate_samples(cfg, calibration_split, num_calibration, seed=seed, batch_size=batch_size))
    trained = get_trained_classes(weights.meta)
    samples = list(iterate_samples(cfg, split, num_samples, trained=trained, seed=seed, batch_size=batch_size))
    return analyze_model(model, [images for images, _ in calibration], samples)


@torch.no_grad()
def analyze_model(model: nn.Module, calibration: Sequence[Tensor], samples: Sequence[Batch]) -> Analysis:
    """Predict what static int8 quantization will do to a model in memory.

    Args:
        model: Classifier in either form, in eval mode and on the CPU. It is not changed.
        calibration: Batches of images ``(N, C, H, W)`` before the data preprocessor.
        samples: Batches of such images with labels ``(N,)``, or with None if there are no labels.

    Raises:
        ValueError: If the model is no image classifier, if there is no image, or activations are not finite.
    """
    _check_classifier(model)
    if not samples:
        raise ValueError('there must be at least one batch of samples')
    images = [images for images, _ in samples]
    known = [labels for _, labels in samples if labels is not None]
    labels = torch.cat(known) if len(known) == len(samples) else None
    norms = describe_norms(model)
    deployed = reparameterize(model)
    ranges = _observe(deployed, calibration)
    expected = _run(deployed, images, 'float32')
    layers = _describe_layers(deployed, ranges, images, expected, norms)

    def find_outcome(
        granularity: str, model: nn.Module = deployed, ranges: Ranges = ranges, **settings: Any
    ) -> Outcome:
        with simulate(model, ranges, granularity, **settings):
            logits = _run(model, images, f'int8 {granularity}')
        return _compare(expected, logits, labels, granularity, **settings)

    outcomes = [
        find_outcome(granularity, activations=activations)
        for activations in (True, False)
        for granularity in GRANULARITIES
    ]
    # the granularity has no effect here, since the weights stay float32
    outcomes.append(find_outcome('per-tensor', weights=False))
    for treatment, treated, treated_ranges in _treat(deployed, calibration):
        # find_outcome compares it with the model before
        outcomes.append(replace(find_outcome('per-tensor', treated, treated_ranges), treatment=treatment))
    if predict(outcomes[0]).level != 'safe':
        outcomes.append(find_outcome('per-tensor', kept=tuple(layer.name for layer in find_worst(layers))))
    return Analysis(
        layers,
        tuple(outcomes),
        None if labels is None else measure_percent(expected, labels),
        num_classes=expected.shape[1],
        num_images=len(expected),
        num_calibration=sum(map(len, calibration)),
        was_switched=bool(norms),
    )


def _compare(
    expected: Tensor,
    logits: Tensor,
    labels: Tensor | None,
    granularity: str,
    *,
    weights: bool = True,
    activations: bool = True,
    kept: tuple[str, ...] = (),
) -> Outcome:
    """Compare the int8 logits ``(N, classes)`` with the float32 logits. Without labels float32 counts as right."""
    predicted, before = logits.argmax(1), expected.argmax(1)
    truth = before if labels is None else labels
    return Outcome(
        granularity,
        weights,
        activations,
        kept,
        num_images=len(logits),
        num_agreeing=int((predicted == before).sum()),
        num_lost=int(((before == truth) & (predicted != truth)).sum()),
        num_gained=int(((before != truth) & (predicted == truth)).sum()),
        accuracy=None if labels is None else measure_percent(logits, labels),
        logits_snr=measure_logits_noise(expected, logits),
    )


def _describe_layers(
    model: nn.Module, ranges: Ranges, batches: Sequence[Tensor], logits: Tensor, norms: Mapping[str, tuple[Norm, ...]]
) -> tuple[Layer, ...]:
    """Describe each layer, and simulate it alone in int8 on the first images."""
    size = len(batches[0])
    few = torch.cat(list(batches[: -(-NUM_LAYER_IMAGES // size)]))[:NUM_LAYER_IMAGES]
    batches = normalise(model, few).split(size)
    snr = measure_output_noise(model, batches, ranges)
    modules = find_layers(model)
    names = [name for name in ranges if name in modules]  # in the order of computation
    layers = []
    for name in track(names, 'layer by layer'):
        with simulate(model, ranges, 'per-tensor', kept=modules.keys() - {name}):
            alone = torch.cat([model(batch) for batch in batches])
        layers.append(
            Layer(
                name,
                describe_kernel(modules[name].weight),
                ranges[name],
                measure_weight_noise(modules[name].weight),
                snr[name],
                measure_logits_noise(logits[: len(few)], alone),
                norms.get(name, ()),
            )
        )
    return tuple(layers)


def _treat(model: nn.Module, calibration: Sequence[Tensor]) -> Iterator[tuple[str, nn.Module, Ranges]]:
    """The treatments, each with a model and the ranges of its activations."""
    batches = [normalise(model, images) for images in calibration]
    try:
        equalized = equalize(model, batches).model
    except NothingToRescaleError:  # so equalization leaves it as it is
        equalized = copy.deepcopy(model)
    ranges = _observe(equalized, calibration)
    yield TREATMENTS[1], equalized, ranges
    round_weights(equalized, torch.cat(batches)[:NUM_IMAGES].split(len(batches[0])), ranges, 'per-tensor')
    yield TREATMENTS[2], equalized, _observe(equalized, calibration)


def _observe(model: nn.Module, calibration: Sequence[Tensor]) -> Ranges:
    return observe_activations(model, (normalise(model, images) for images in track(calibration, 'observing')))


def _run(model: nn.Module, batches: Sequence[Tensor], title: str) -> Tensor:
    """Compute the logits ``(N, classes)`` of all batches of images."""
    return torch.cat([model(normalise(model, images)) for images in track(batches, title)])


def _check_classifier(model: Any) -> None:
    if not getattr(model, 'with_head', False) or not hasattr(model.head, 'pre_logits'):
        raise ValueError(
            f'the model must be an image classifier, got {type(model).__name__}; give a config whose model is an '
            'ImageClassifier'
        )
    if getattr(model, 'with_neck', False) and len(getattr(model.backbone, 'out_indices', ())) > 1:
        raise ValueError(
            f'the backbone must have one output to be analyzed, got out_indices={model.backbone.out_indices}; keep '
            'only the last one, which the head takes'
        )

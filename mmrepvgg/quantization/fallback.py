"""The search for the layers that must stay in float32, so that an int8 model keeps its accuracy."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..progress import track
from ..runtimes.metadata import ExportMetadata
from ..runtimes.network import ExportError
from ..runtimes.quantizer import Int8Model
from .measuring import Batch, Run, load_file, measure_accuracy

# Number of batches of calibration images on which layers are ranked.
_NUM_RANKING = 4


class AccuracyError(ExportError):
    """int8 loses more accuracy than allowed, and no choice of float32 layers helps."""


def limit_drop(
    int8: Int8Model,
    path: Path,
    metadata: ExportMetadata,
    *,
    accuracy: float,
    max_drop: float,
    calibration: Sequence[np.ndarray],
    test: Iterable[Batch],
) -> tuple[str, ...]:
    """Choose the layers that stay in float32, so that top-1 accuracy drops by at most ``max_drop`` points.

    Args:
        int8: The model.
        path: File that is written and run for each trial.
        metadata: Description of that file.
        accuracy: Top-1 accuracy of the float32 model in percent.
        max_drop: Largest allowed drop in points.
        calibration: Batches of inputs on which the layers are ranked.
        test: Batches on which the accuracy is measured. Each trial reads all of them.

    Returns:
        tuple[str, ...]: Names of these layers.

    Raises:
        AccuracyError: If no choice of layers is good enough.
    """
    layers = [layer for layer, can_be_int8 in int8.layers.items() if can_be_int8]
    tried = []

    def write(float_layers: Collection[str]) -> Run:
        int8.write(path, metadata, float_layers)
        return load_file(path)

    def is_enough(float_layers: frozenset[str]) -> bool:
        tried.append(measure_accuracy(write(float_layers), test))
        # two percentages have rounding errors
        return accuracy - tried[-1] <= max_drop + 1e-9

    def run(float_layers: Collection[str]) -> Tensor:
        run_file = write(float_layers)
        return torch.cat([run_file(inputs) for inputs in calibration[:_NUM_RANKING]])

    def rank() -> Iterator[tuple[float, str]]:
        expected = run(layers)
        for layer in track(layers, 'ranking layers'):
            yield _measure_noise(expected, run(set(layers) - {layer})), layer

    kept: tuple[str, ...] | None = ()
    if not is_enough(frozenset()):
        kept = find_float_layers([layer for _, layer in sorted(rank(), reverse=True)], is_enough)
    if kept is None:
        raise AccuracyError(
            f'int8 can not keep the top-1 accuracy within {max_drop:g} points of float32: {accuracy:.2f}% in float32, '
            f'{tried[0]:.2f}% with all layers in int8, {max(tried):.2f}% at best with some in float32; nothing was '
            'written. Allow a larger `max_drop`, try `granularity=per-channel` or another `calibration`, or train for '
            'quantization'
        )
    return kept


def find_float_layers(ranked: Sequence[str], is_enough: Callable[[frozenset[str]], bool]) -> tuple[str, ...] | None:
    """Find a small set of layers that must stay in float32.

    The first trial keeps the most sensitive layer. Each further trial keeps twice as many, until the set is enough.
    The number is then bisected. At last the search puts halves of the set back to int8, then quarters, down to single
    layers, as long as the rest is enough: a ranking of single layers says little about several layers together.

    Args:
        ranked: Names of all layers, the most sensitive one first. At least one must be kept.
        is_enough: Function that tells whether a set of layers in float32 is enough.

    Returns:
        tuple[str, ...] | None: Names of the layers in the order of ``ranked``. None if even one int8 layer is too much.
    """
    is_enough = functools.cache(is_enough)
    most = len(ranked) - 1
    too_few, enough = 0, min(1, most)
    while not enough or not is_enough(frozenset(ranked[:enough])):
        if enough == most:
            return None
        too_few, enough = enough, min(2 * enough, most)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if is_enough(frozenset(ranked[:middle])):
            enough = middle
        else:
            too_few = middle
    return _put_back(ranked[:enough], is_enough)


def _put_back(kept: Sequence[str], is_enough: Callable[[frozenset[str]], bool]) -> tuple[str, ...]:
    kept = tuple(kept)
    size = len(kept) // 2
    while size:
        start = 0
        while start < len(kept):
            rest = kept[:start] + kept[start + size :]
            if rest and is_enough(frozenset(rest)):
                kept = rest
            else:
                start += size
        size //= 2
    return kept


def _measure_noise(expected: Tensor, got: Tensor) -> float:
    """The energy of the error over the energy of the scores; infinity if a score is not finite."""
    if not got.isfinite().all():
        return float('inf')
    return ((got - expected).square().sum() / expected.square().sum().clamp_min(1e-30)).item()

"""Which layers must stay in float32 so that an int8 model keeps its accuracy."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..progress import track
from ..runtimes.format import Int8Model
from ..runtimes.metadata import ExportMetadata
from ..runtimes.network import ExportError
from .measuring import Batch, Run, load_file, measure_accuracy

# Layers are ranked on so many batches of the calibration images.
_NUM_RANKING = 4


class AccuracyError(ExportError):
    """int8 loses more accuracy than allowed, whichever layers stay in float32."""


def limit_drop(
    int8: Int8Model,
    path: Path,
    metadata: ExportMetadata,
    *,
    accuracy: float,
    max_drop: float,
    calibration: Sequence[np.ndarray],
    test: Iterable[Batch],
) -> tuple[tuple[str, ...], float]:
    """Choose the layers that stay in float32 so that at most ``max_drop`` points of top-1 accuracy are lost.

    Args:
        int8: The model.
        path: A file to try with.
        metadata: Of that file.
        accuracy: Top-1 in percent in float32.
        max_drop: In points.
        calibration: Batches of inputs by which the layers are ranked.
        test: Batches on which the accuracy is measured; gone through many times.

    Returns:
        tuple[tuple[str, ...], float]: These layers, and the top-1 in percent with all layers in int8.

    Raises:
        AccuracyError: If that can't be had.
    """
    layers = [layer for layer, can_be_int8 in int8.layers.items() if can_be_int8]
    tried = []

    def write(float_layers: Collection[str]) -> Run:
        int8.write(path, metadata, float_layers)
        return load_file(path)

    def is_enough(float_layers: frozenset[str]) -> bool:
        tried.append(measure_accuracy(write(float_layers), test))
        # a difference of two percentages may be a hair off
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
    return kept, tried[0]


def find_float_layers(ranked: Sequence[str], is_enough: Callable[[frozenset[str]], bool]) -> tuple[str, ...] | None:
    """Find a small set of layers which must be kept in float32.

    The most sensitive layers are kept first, twice as many each time, until that is enough; then the number is
    bisected. Of what is left as much as can be is put back to int8, halves first, then quarters, down to single layers:
    a ranking of layers one by one says little about them together.

    Args:
        ranked: All layers, the most sensitive one first. At least one must be kept.
        is_enough: Whether a set of layers in float32 is enough.

    Returns:
        tuple[str, ...] | None: The layers in the order of ``ranked``; None if not even one layer can be int8.
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
    """Energy of the error relative to that of the scores; infinite if a score is not finite."""
    if not got.isfinite().all():
        return float('inf')
    return ((got - expected).square().sum() / expected.square().sum().clamp_min(1e-30)).item()

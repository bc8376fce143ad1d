"""int8 simulated in float32: the numbers that the ONNX files of tools/quantize.py compute with.

Weights are int8 and symmetric, activations uint8 with a zero point, ranges are minima and maxima that include 0.
The bias stays: it is int32 there, on a grid much finer than the others.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...models.int8 import fake_quantize_activations, fake_quantize_kernel
from ..settings import GRANULARITIES
from .points import find_layers, find_points, intercept
from .results import Activations


def quantize_activations(x: Tensor, values: Activations) -> Tensor:
    """Round ``x`` to the 256 values of uint8 over the range of ``values``."""
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in (values.low, values.high))
    return fake_quantize_activations(x, low, high)


def quantize_weight(weight: Tensor, granularity: str) -> Tensor:
    """Round ``weight``, output channels first, to the 255 values of symmetric int8.

    Args:
        weight: ``(C_out, ...)``.
        granularity: ``'per-tensor'`` for one scale, ``'per-channel'`` for one each output channel.

    Raises:
        ValueError: For another granularity.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f'granularity must be one of {", ".join(GRANULARITIES)}, got {granularity!r}')
    return fake_quantize_kernel(weight, per_channel=granularity == 'per-channel')


@contextmanager
def simulate(
    model: nn.Module,
    ranges: Mapping[str, Activations],
    granularity: str,
    *,
    weights: bool = True,
    activations: bool = True,
    layers: Collection[str] | None = None,
    kept: Collection[str] = (),
) -> Iterator[None]:
    """Let ``model`` compute as if in int8; afterwards it is as it was.

    Args:
        model: A classifier in deploy form and eval mode.
        ranges: Of its activations, by the names of :func:`find_points`.
        granularity: Of the weights.
        weights: Quantize them.
        activations: Quantize them.
        layers: Quantize these layers alone, their inputs and weights. Default: everything.
        kept: Layers that stay float32, their inputs and weights.
    """
    points = {name: point for name, point in find_points(model).items() if name in ranges and point.layer not in kept}
    if layers is not None:
        points = {name: point for name, point in points.items() if point.layer in layers}
    chosen = {
        name: layer
        for name, layer in find_layers(model).items()
        if name not in kept and (layers is None or name in layers)
    }

    def round_activations(name: str, x: Tensor) -> Tensor:
        return quantize_activations(x, ranges[name])

    originals = {name: layer.weight.data for name, layer in chosen.items()} if weights else {}
    try:
        for name, weight in originals.items():
            chosen[name].weight.data = quantize_weight(weight, granularity)
        with intercept(points if activations else {}, round_activations):
            yield
    finally:
        for name, weight in originals.items():
            chosen[name].weight.data = weight

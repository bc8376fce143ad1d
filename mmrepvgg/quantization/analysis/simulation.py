"""int8 simulated in float32: the numbers with which int8 ONNX files compute.

Weights are int8 and symmetric, activations uint8 with a zero point, ranges are minima and maxima that include 0.
Biases stay as they are. In a file they are int32, in steps of the input's times the weight's, which are far finer.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...models.fake_quant_settings import GRANULARITIES
from ...models.int8 import fake_quantize_activations, fake_quantize_kernel
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
        raise ValueError(f'`granularity` must be one of {", ".join(GRANULARITIES)}, got {granularity!r}')
    return fake_quantize_kernel(weight, per_channel=granularity == 'per-channel')


@contextmanager
def simulate(
    model: nn.Module,
    ranges: Mapping[str, Activations],
    granularity: str,
    *,
    weights: bool = True,
    activations: bool = True,
    kept: Collection[str] = (),
) -> Iterator[None]:
    """Let ``model`` compute as if in int8; afterwards it is as it was.

    Args:
        model: A classifier in deploy form and eval mode.
        ranges: Of its activations, by the names of :func:`find_points`.
        granularity: Of the weights.
        weights: Quantize them.
        activations: Quantize them.
        kept: Layers that stay float32, their inputs and weights.
    """
    points = {name: point for name, point in find_points(model).items() if name in ranges and point.layer not in kept}
    layers = {name: layer for name, layer in find_layers(model).items() if name not in kept}

    def round_activations(name: str, x: Tensor) -> Tensor:
        return quantize_activations(x, ranges[name])

    originals = {name: layer.weight.data for name, layer in layers.items()} if weights else {}
    try:
        for name, weight in originals.items():
            layers[name].weight.data = quantize_weight(weight, granularity)
        with intercept(points if activations else {}, round_activations):
            yield
    finally:
        for name, weight in originals.items():
            layers[name].weight.data = weight

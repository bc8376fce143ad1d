"""int8 that is simulated in float32, with the numbers of int8 ONNX files.

Weights are int8 and symmetric. Activations are uint8 with a zero point. Ranges go from the minimum to the maximum, and
include 0. Biases are not rounded: files have them in int32, whose steps are far finer.
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
        weight: Weight ``(C_out, ...)``.
        granularity: ``'per-tensor'`` for one scale, ``'per-channel'`` for one scale for each output channel.

    Raises:
        ValueError: If the granularity is another.
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
    """Make a model compute in simulated int8. Afterwards it is restored.

    Args:
        model: Classifier in deploy form and eval mode.
        ranges: Ranges of its activations, by the names of :func:`find_points`.
        granularity: ``'per-tensor'`` or ``'per-channel'``: what has a scale of its own in the weights.
        weights: Whether the weights are int8.
        activations: Whether the activations are int8.
        kept: Names of layers whose inputs and weights stay float32.
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

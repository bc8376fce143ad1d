"""The scales of channels that make the noise of per-tensor int8 smallest.

The variance of a rounding error is that of its grid's step, ``step**2 / 12``. With one step a tensor, the step of a
weight follows its largest value, and so does the step of an input. The sum of all these variances, each times what the
output makes of it, is a convex function of the logarithms of the scales, since each of its terms is a product of powers
and maxima. So there is one minimum, and it is found by L-BFGS. The maxima are approached by p-norms of rising order.

Scales of neighbouring layers alone are due to Nagel et al. (ICCV 2019, arXiv:1906.04721), whose rule makes the largest
weights of a channel equal on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.int8 import MAX_INT8, MAX_UINT8
from .channels import Channels

# Orders of the p-norms, and the largest number of steps for each.
_ORDERS = (4, 16, 64, 256)
_MAX_STEPS = 40
# Channels that the images never use count as much as this part of the mean channel.
_FLOOR = 1e-3
# Sweeps over all layers before the search, and the largest logarithm of a scale that they give.
_NUM_SWEEPS, _MAX_LOG = 40, 10.0
_TINY = torch.finfo(torch.float64).tiny


@dataclass
class Sensitivity:
    """What a layer does to the output, and the largest values of its tensors. All are float64.

    Attributes:
        largest: Largest absolute weights, ``(groups, outputs, inputs)``: the kernel's taps are reduced.
        weights: Effect of an error of a weight on the output, squared and summed over the taps, likewise.
        inputs: Effect of an error of an input channel, squared, ``(groups, inputs)``; None without images.
        ranges: Largest absolute value of each input channel, likewise.
    """

    largest: Tensor
    weights: Tensor
    inputs: Tensor | None = None
    ranges: Tensor | None = None

    def move(self, source: Tensor, target: Tensor) -> 'Sensitivity':
        """The same layer, with channels rescaled by these logarithms, ``(groups, C / groups)``."""
        exponent = source[:, None] - target[:, :, None]
        return Sensitivity(
            self.largest * exponent.exp(),
            self.weights * (-2 * exponent).exp(),
            None if self.inputs is None else self.inputs * (2 * source).exp(),
            None if self.ranges is None else self.ranges * (-source).exp(),
        )

    def raise_floor(self) -> 'Sensitivity':
        """Let channels count that the images never use: other images may."""
        weights, inputs, ranges = self.weights, self.inputs, self.ranges
        if inputs is None or ranges is None or not ranges.any():  # a layer that gets nothing has nothing to round
            inputs = ranges = None
        else:
            inputs, ranges = inputs.clamp_min(_FLOOR * inputs.mean()), ranges.clamp_min(_FLOOR * ranges.max())
        return Sensitivity(self.largest, weights.clamp_min(_FLOOR * weights.mean()), inputs, ranges)


def find_scales(channels: Channels, sensitivities: list[Sensitivity]) -> list[Tensor]:
    """Find the numbers by which channels are divided: for each entry of ``channels.sizes`` one ``(C,)``, float64.

    Their geometric mean is 1 in each tensor.

    Args:
        channels: The layers, and what can be rescaled.
        sensitivities: A sensitivity for each layer. The list is changed, which saves memory.
    """
    balanced = _balance(channels, sensitivities)
    values = balanced.split(channels.sizes)
    for index, sensitivity in enumerate(sensitivities):
        sensitivities[index] = sensitivity.move(*_get_ends(channels, index, values)).raise_floor()
    logs = torch.zeros_like(balanced)
    for order in _ORDERS:
        logs = logs + _minimise(channels, sensitivities, logs, order)
    return [(log - log.mean()).exp() for log in (balanced + logs).split(channels.sizes)]


def _balance(channels: Channels, sensitivities: Sequence[Sensitivity]) -> Tensor:
    """Logarithms of scales with which each channel's largest weight is the same in the layers before and behind it.

    The search starts from there, so that it does not matter how the model was scaled before.
    """
    logs = torch.zeros(sum(channels.sizes), dtype=torch.float64)
    for _ in range(_NUM_SWEEPS):
        values = logs.split(channels.sizes)
        rows = [torch.full((size,), _TINY, dtype=torch.float64) for size in channels.sizes]
        columns = [row.clone() for row in rows]
        for index, layer in enumerate(channels.layers):
            source, target = _get_ends(channels, index, values)
            scaled = sensitivities[index].largest * (source[:, None] - target[:, :, None]).exp()
            if layer.target is not None:
                rows[layer.target] = rows[layer.target].maximum(scaled.amax(2).flatten())
            if layer.source is not None:
                columns[layer.source] = columns[layer.source].maximum(scaled.amax(1).flatten())
        # half a step for all channels at once, since both ends of a layer move
        logs = (logs + (torch.cat(rows) / torch.cat(columns)).log() / 4).clamp(-5 * _MAX_LOG, 5 * _MAX_LOG)
    return torch.cat([(log - log.median()).clamp(-_MAX_LOG, _MAX_LOG) for log in logs.split(channels.sizes)])


def _minimise(channels: Channels, sensitivities: Sequence[Sensitivity], start: Tensor, order: int) -> Tensor:
    """The change of the logarithms that makes the noise smallest, with p-norms instead of maxima."""
    starts = start.split(channels.sizes)
    terms = [
        _Term(sensitivity.move(*_get_ends(channels, index, starts)), order)
        for index, sensitivity in enumerate(sensitivities)
    ]
    change = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [change], max_iter=_MAX_STEPS, history_size=20, tolerance_change=1e-7, line_search_fn='strong_wolfe'
    )

    def compute() -> Tensor:
        optimizer.zero_grad()
        changes = change.split(channels.sizes)
        noises = [term(*_get_ends(channels, index, changes)) for index, term in enumerate(terms)]
        loss = torch.stack(noises).sum().log()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(compute)
    return change.detach()


def _get_ends(channels: Channels, index: int, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The values of a layer's input and output channels, ``(groups, C / groups)``; zeros where the scale is fixed."""
    layer = channels.layers[index]
    num_outputs, num_inputs = layer.module.weight.shape[:2]
    zeros = torch.zeros((), dtype=torch.float64)
    source = zeros.expand(layer.groups * num_inputs) if layer.source is None else values[layer.source]
    target = zeros.expand(num_outputs) if layer.target is None else values[layer.target]
    return source.reshape(layer.groups, -1), target.reshape(layer.groups, -1)


class _Term:
    """The noise of one layer, as a function of the change of the logarithms of its channels' scales."""

    def __init__(self, sensitivity: Sensitivity, order: int):
        self.sensitivity, self.order = sensitivity, order
        self.peak = sensitivity.largest.max().clamp_min(_TINY)
        self.powers = (sensitivity.largest / self.peak) ** order

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        # the largest value is taken out of each factor, or the powers would overflow
        high, low = source.max(), target.min()
        total = _sum(self.powers, self.order * (source - high), self.order * (low - target))
        largest = self.peak.log() + high - low + total.clamp_min(_TINY).log() / self.order
        noise = (2 * largest).exp() / MAX_INT8**2 * _sum(self.sensitivity.weights, -2 * source, 2 * target)
        inputs, ranges = self.sensitivity.inputs, self.sensitivity.ranges
        if inputs is not None and ranges is not None:
            largest = (self.order * (ranges.log() - source)).flatten().logsumexp(0) / self.order
            noise = noise + (2 * largest).exp() / MAX_UINT8**2 * (inputs * (2 * source).exp()).sum()
        return noise


def _sum(matrix: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The sum of ``matrix * exp(source + target)``, by products of a matrix and a vector."""
    return (target.exp()[:, None] @ (matrix @ source.exp()[:, :, None])).sum()

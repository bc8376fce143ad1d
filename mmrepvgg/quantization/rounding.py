"""Adaptive rounding: each weight is rounded so that it makes up for the errors of those before it.

Frantar et al., "Optimal Brain Compression" (NeurIPS 2022, arXiv:2208.11580) and "GPTQ" (ICLR 2023, arXiv:2210.17323),
for convolutions. The weights of a layer are rounded one input after another, and the error of its output that this
causes is taken off the weights that are still to be rounded. Then the bias takes the mean error that is left. Layers
come in the order of computation, so each one sees the errors of those before it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..models.int8 import MAX_INT8
from ..progress import track
from .analysis.points import find_layers, to_channels
from .analysis.results import Activations
from .analysis.simulation import simulate

# Number of images. More of them change little.
NUM_IMAGES = 128
# Input channels whose errors make up for each other. It bounds memory and time: a 3x3 kernel has 9 inputs a channel.
_CHANNELS = 256
# Pixels whose inputs are in memory at a time.
_POSITIONS = 4096
# Inputs that are rounded before the others are told of their errors.
_BLOCK = 64
# Part of the mean of the diagonal that is added to it, as in GPTQ.
_DAMPING = 0.01


class _LayerReachedError(Exception):
    """No error: the forward pass has reached the layer, and need not go on."""


@torch.no_grad()
def round_weights(
    model: nn.Module, batches: Sequence[Tensor], ranges: Mapping[str, Activations], granularity: str
) -> None:
    """Round the weights of a model to the grid of int8, in place. Largest weights stay, and with them the grid.

    A layer that is called several times in one forward pass stays as it is: it has no one input.

    Args:
        model: Classifier in deploy form and eval mode.
        batches: Normalised images ``(N, C, H, W)``.
        ranges: Ranges of its activations, from :func:`observe_activations`.
        granularity: ``'per-tensor'`` or ``'per-channel'``: what has a scale of its own in the weights.
    """
    layers = find_layers(model)
    names = [name for name in ranges if name in layers]  # in the order of computation
    expected = {name: _Mean() for name in names}
    handles = [
        layers[name].register_forward_hook(
            lambda module, args, output, name=name: expected[name].add(to_channels(module, output))
        )
        for name in names
    ]
    try:
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    with simulate(model, ranges, granularity, weights=False):
        for name in track(names, 'rounding'):
            layer = layers[name]
            if expected[name].num_calls != len(batches):
                continue
            inputs = _collect_inputs(model, layer, batches)
            layer.weight.copy_(_round_layer(layer, inputs, granularity))
            got = _Mean()
            for x in inputs:
                got.add(to_channels(layer, layer.forward(x)))  # without the hook that has rounded it already
            if layer.bias is not None:
                layer.bias.add_((expected[name].get() - got.get()).to(layer.bias.dtype))


class _Mean:
    """The mean of each channel of outputs ``(N, C, ...)``."""

    def __init__(self) -> None:
        self.total: Any = 0
        self.count = self.num_calls = 0

    def add(self, output: Tensor) -> None:
        values = output.double().transpose(0, 1).flatten(1)
        self.total, self.count = self.total + values.sum(1), self.count + values.shape[1]
        self.num_calls += 1

    def get(self) -> Tensor:
        return self.total / self.count


def _collect_inputs(model: nn.Module, layer: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    inputs: list[Tensor] = []

    def collect(module: nn.Module, args: tuple[Tensor]) -> None:
        inputs.append(args[0].clone())
        raise _LayerReachedError

    handle = layer.register_forward_pre_hook(collect)
    try:
        for batch in batches:
            with suppress(_LayerReachedError):
                model(batch)
    finally:
        handle.remove()
    return inputs


def _round_layer(layer: Any, inputs: Sequence[Tensor], granularity: str) -> Tensor:
    weight = layer.weight.double()
    rows = weight.flatten(1)  # (C_out, inputs of an output)
    largest = (
        rows.abs().amax(1, keepdim=True) if granularity == 'per-channel' else rows.abs().amax().expand(len(rows), 1)
    )
    step = torch.where(largest > 0, largest / MAX_INT8, 1.0)
    groups = getattr(layer, 'groups', 1)
    rounded = torch.empty_like(rows)
    num_rows, num_taps = len(rows) // groups, rows.shape[1] // weight.shape[1]
    for group in range(groups):
        part = slice(group * num_rows, (group + 1) * num_rows)
        for start in range(0, weight.shape[1], _CHANNELS):
            stop = min(start + _CHANNELS, weight.shape[1])
            columns = slice(start * num_taps, stop * num_taps)
            offset = group * weight.shape[1]
            products = _multiply_inputs(layer, inputs, slice(offset + start, offset + stop))
            rounded[part, columns] = _round_rows(rows[part, columns], products, step[part])
    return rounded.view_as(weight).to(layer.weight.dtype)


def _multiply_inputs(layer: Any, inputs: Sequence[Tensor], channels: slice) -> Tensor:
    """The sum over all outputs of the products of each two inputs ``(inputs, inputs)``: a multiple of the Hessian.

    The largest input counts as 1: squares of tiny numbers would be 0 in float32.
    """
    batches = [to_channels(layer, x)[:, channels] for x in inputs]
    peak = torch.stack([x.abs().max() for x in batches]).max()
    total: Any = 0
    for x in batches:
        x = x / torch.where(peak > 0, peak, 1.0)
        # few images at a time, because a 3x3 convolution has 9 numbers for each one of its input
        for images in x.split(max(1, _POSITIONS // x[0, 0].numel())):
            values = images.T if isinstance(layer, nn.Linear) else _unfold(layer, images)
            total = total + (values @ values.T).double()
    return total


def _unfold(conv: Any, images: Tensor) -> Tensor:
    """The inputs of each output ``(inputs, outputs)``, with the padding of the convolution."""
    mode = 'constant' if conv.padding_mode == 'zeros' else conv.padding_mode
    padded = nn.functional.pad(images, conv._reversed_padding_repeated_twice, mode)
    values = nn.functional.unfold(padded, conv.kernel_size, conv.dilation, stride=conv.stride)
    return values.transpose(0, 1).flatten(1)


def _round_rows(rows: Tensor, products: Tensor, step: Tensor) -> Tensor:
    """Round each row to multiples of its step, with the errors of one column made up for by the next ones."""
    # the inputs that matter most are rounded first, when there is still much to make up with
    order = products.diagonal().argsort(descending=True)
    products, rest = products[order][:, order], rows[:, order]
    mean = products.diagonal().mean()
    # the matrix must have an inverse, if all inputs are 0, too
    damping = _DAMPING * mean if mean > 0 else torch.ones_like(mean)
    products = products + damping * torch.eye(len(products), dtype=products.dtype)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(products)), upper=True)
    is_largest = rest.abs() >= (MAX_INT8 - 1e-6) * step  # they make the grid, which must stay
    original, rounded = rest.clone(), torch.empty_like(rest)
    for start in range(0, rest.shape[1], _BLOCK):
        block = slice(start, min(start + _BLOCK, rest.shape[1]))
        factors, values = inverse[block, block], rest[:, block].clone()
        errors = torch.empty_like(values)
        for column in range(values.shape[1]):
            steps = (values[:, column : column + 1] / step).round().clamp(-MAX_INT8, MAX_INT8)
            nearest = torch.where(is_largest[:, start + column], original[:, start + column], (steps * step).squeeze(1))
            errors[:, column] = (values[:, column] - nearest) / factors[column, column]
            values[:, column:] -= errors[:, column, None] * factors[column, column:]
            rounded[:, start + column] = nearest
        rest[:, block.stop :] -= errors @ inverse[block, block.stop :]
    return rounded[:, order.argsort()]

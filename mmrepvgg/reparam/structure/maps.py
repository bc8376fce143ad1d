"""Affine maps that one convolution computes.

The output of a map at position ``o`` of an axis is a sum over taps: tap ``i`` looks at the place
``o * stride + start + i * step`` of the input. ``start`` is minus the padding on the left. An axis of length ``L`` has
the outputs with ``o * stride <= L - 1 + slack``: two maps give outputs of the same length for every input if stride and
slack are the same.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """The identity times a number, for any shape."""

    factor: float = 1.0


@dataclass(frozen=True)
class Pooling:
    """An average of neighbours, for any number of channels, which another layer must tell."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ConvMap:
    """A convolution in any number of dimensions.

    Attributes:
        weight: ``(C_out, C_in // groups, *kernel_size)``, float64.
        bias: ``(C_out,)``, float64; None if there is none, whatever the numbers are.
        groups: Number of groups.
        stride: Stride of each axis.
        start: Where the first tap of the first output is, along each axis.
        step: Dilation of each axis.
        slack: Padding on the right, less the place of the last tap of the first output, along each axis.
        padding_mode: What is beyond the borders, as in torch's convolutions.
    """

    weight: Tensor
    bias: Tensor | None
    groups: int = 1
    stride: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    slack: tuple[int, ...] = ()
    padding_mode: str = 'zeros'

    @property
    def num_inputs(self) -> int:
        return self.weight.shape[1] * self.groups

    @property
    def num_outputs(self) -> int:
        return len(self.weight)

    @property
    def num_axes(self) -> int:
        return self.weight.dim() - 2

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def end(self) -> tuple[int, ...]:
        """Where the last tap of the first output is."""
        return tuple(a + (k - 1) * d for a, k, d in zip(self.start, self.size, self.step, strict=True))

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Padding on the left and the right of each axis."""
        return tuple((-a, slack + end) for a, slack, end in zip(self.start, self.slack, self.end, strict=True))

    @property
    def is_padded(self) -> bool:
        return any(left > 0 or right > 0 for left, right in self.padding)

    @property
    def is_pointwise(self) -> bool:
        return self.size == (1,) * self.num_axes and self.padding == ((0, 0),) * self.num_axes

    @property
    def is_channel_scale(self) -> bool:
        """Whether it does the same to all values of a channel, each for itself, as a batch norm does."""
        return self.is_pointwise and set(self.stride) <= {1} and self.groups == self.num_inputs == self.num_outputs

    @property
    def num_weights(self) -> int:
        return self.weight.numel()


@dataclass(frozen=True, eq=False)
class TransposedMap:
    """A transposed convolution.

    Attributes:
        weight: ``(C_in, C_out // groups, *kernel_size)``, float64.
        bias: ``(C_out,)``, float64, or None.
        groups: Number of groups.
        geometry: Stride, padding, output padding and dilation of each axis.
    """

    weight: Tensor
    bias: Tensor | None
    groups: int
    geometry: tuple[tuple[int, ...], ...]

    @property
    def num_axes(self) -> int:
        return self.weight.dim() - 2

    @property
    def num_outputs(self) -> int:
        return self.weight.shape[1] * self.groups

    @property
    def num_weights(self) -> int:
        return self.weight.numel()


@dataclass(frozen=True, eq=False)
class CustomMap:
    """A convolution of another kind, which pads by the size of its input, for example. Its outputs can be scaled.

    Attributes:
        weight: ``(C_out, C_in // groups, *kernel_size)``, float64.
        bias: ``(C_out,)``, float64, or None.
        layer: The layer, which computes the same with other weights.
    """

    weight: Tensor
    bias: Tensor | None
    layer: Any

    @property
    def num_axes(self) -> int:
        return self.weight.dim() - 2

    @property
    def num_outputs(self) -> int:
        return len(self.weight)

    @property
    def num_weights(self) -> int:
        return self.weight.numel()


AffineMap = ConvMap | TransposedMap | CustomMap | Scaling | Pooling
# Maps of layers with weights.
LAYER_MAPS = (ConvMap, TransposedMap, CustomMap)


def make_pointwise(weight: Tensor, bias: Tensor | None, groups: int, num_axes: int) -> ConvMap:
    """A 1x1 convolution with ``weight`` ``(C_out, C_in // groups)``."""
    ones, zeros = (1,) * num_axes, (0,) * num_axes
    return ConvMap(weight.reshape(*weight.shape, *ones), bias, groups, ones, zeros, ones, zeros)


def make_channel_scale(scale: Tensor, shift: Tensor | None, num_axes: int) -> ConvMap:
    """``scale * x + shift`` for each channel, both ``(C,)``: a batch norm, or a layer scale without a shift."""
    return make_pointwise(scale.reshape(-1, 1), shift, scale.numel(), num_axes)


def make_pooling(pool: Pooling, like: ConvMap, channels: int) -> ConvMap:
    """The convolution of a pooling with so many channels, on the device of ``like``."""
    weight = like.weight.new_full((channels, 1, *pool.size), 1 / math.prod(pool.size))
    ones = (1,) * len(pool.size)
    return place(weight, None, channels, pool.stride, pool.padding, pool.padding, ones)


def place(
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    stride: tuple[int, ...],
    left: tuple[int, ...],
    right: tuple[int, ...],
    dilation: tuple[int, ...],
    padding_mode: str = 'zeros',
) -> ConvMap:
    """A map from the arguments of a convolution, with the padding of each side."""
    ends = [(k - 1) * d - a for k, d, a in zip(weight.shape[2:], dilation, left, strict=True)]
    slack = tuple(b - end for b, end in zip(right, ends, strict=True))
    return ConvMap(weight, bias, groups, tuple(stride), tuple(-a for a in left), tuple(dilation), slack, padding_mode)


def to_meta(one: AffineMap) -> AffineMap:
    """The map without its numbers: the search needs their shapes alone."""
    if isinstance(one, Scaling | Pooling):
        return one
    return replace(one, weight=one.weight.to('meta'), bias=None if one.bias is None else one.bias.to('meta'))

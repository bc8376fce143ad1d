"""Affine maps that one convolution computes, and their algebra: sums and chains of them, exact in float64.

The output of a map at position ``o`` of an axis is a sum over taps: tap ``i`` looks at ``o * stride + start + i * step`` of
the input. ``start`` is minus the padding on the left. ``slack`` is how far the input goes on behind the last tap of the
last output: two maps give outputs of the same length for every input if stride and slack are the same.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


class InexactError(Exception):
    """Two maps have no exact sum or chain that is one convolution; the text says why."""


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
        bias: ``(C_out,)``, float64.
        groups: Number of groups.
        stride: Stride of each axis.
        start: Where the first tap of the first output is, along each axis.
        step: Dilation of each axis.
        slack: Padding on the right, less the place of the last tap of the first output, along each axis.
        padding_mode: What is beyond the borders, as in torch's convolutions.
    """

    weight: Tensor
    bias: Tensor
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
    def num_weights(self) -> int:
        return self.weight.numel()


def make_pointwise(weight: Tensor, bias: Tensor, groups: int, num_axes: int) -> ConvMap:
    """A 1x1 convolution with ``weight`` ``(C_out, C_in // groups)``."""
    ones, zeros = (1,) * num_axes, (0,) * num_axes
    return ConvMap(weight.reshape(*weight.shape, *ones), bias, groups, ones, zeros, ones, zeros)


def make_channel_scale(scale: Tensor, shift: Tensor, num_axes: int) -> ConvMap:
    """``scale * x + shift`` for each channel, both ``(C,)``: a batch norm, or a layer scale."""
    return make_pointwise(scale.reshape(-1, 1), shift, scale.numel(), num_axes)


def make_pooling(pool: Pooling, like: ConvMap, channels: int) -> ConvMap:
    """The convolution of a pooling with so many channels, on the device of ``like``."""
    weight = like.weight.new_full((channels, 1, *pool.size), 1 / math.prod(pool.size))
    ones = (1,) * len(pool.size)
    return place(weight, weight.new_zeros(channels), channels, pool.stride, pool.padding, pool.padding, ones)


def place(
    weight: Tensor,
    bias: Tensor,
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


def scale(one: ConvMap, factor: float) -> ConvMap:
    return replace(one, weight=one.weight * factor, bias=one.bias * factor)


AffineMap = ConvMap | Scaling | Pooling


def add(one: AffineMap, other: AffineMap) -> AffineMap:
    """The map that is the sum of two.

    Raises:
        InexactError: If no convolution computes that for inputs of all sizes.
    """
    if isinstance(one, Scaling) and isinstance(other, Scaling):
        return Scaling(one.factor + other.factor)
    if not isinstance(one, ConvMap):
        one, other = other, one
    if not isinstance(one, ConvMap):
        raise InexactError('no layer tells the number of channels')
    if isinstance(other, Pooling):
        other = make_pooling(other, one, one.num_inputs)
    if isinstance(other, Scaling):
        other = make_identity(one, other.factor)
    if one.weight.shape[0] != other.weight.shape[0] or one.num_inputs != other.num_inputs:
        raise InexactError('the paths have other numbers of channels')
    if one.num_axes != other.num_axes:
        raise InexactError('the paths have other numbers of dimensions')
    if one.stride != other.stride or one.slack != other.slack:
        raise InexactError('the paths look at other pixels: stride or padding differ')
    groups = math.gcd(one.groups, other.groups)
    one, other = regroup(one, groups), regroup(other, groups)
    taps = [
        _join_axes(*axis)
        for axis in zip(one.start, one.step, one.size, other.start, other.step, other.size, strict=True)
    ]
    start, step, size = (tuple(each) for each in zip(*taps, strict=True)) if taps else ((), (), ())
    weight = _spread(one, start, step, size) + _spread(other, start, step, size)
    mode = _join_modes(one, other)
    return ConvMap(weight, one.bias + other.bias, groups, one.stride, start, step, one.slack, mode)


def make_identity(like: ConvMap, factor: float = 1.0) -> ConvMap:
    """The identity times ``factor`` with the channels, device and axes of ``like``."""
    scales = like.bias.new_full((like.num_inputs,), factor)
    return make_channel_scale(scales, torch.zeros_like(scales), like.num_axes)


def regroup(one: ConvMap, groups: int) -> ConvMap:
    """The same map with fewer groups, which must divide those that it has."""
    merged = one.groups // groups
    if merged == 1:
        return one
    outputs, inputs = one.weight.shape[:2]
    outputs_each = outputs // one.groups
    weight = one.weight.new_zeros(outputs, inputs * merged, *one.size)
    for group in range(one.groups):
        rows = slice(group * outputs_each, (group + 1) * outputs_each)
        column = group % merged * inputs
        weight[rows, column : column + inputs] = one.weight[rows]
    return replace(one, weight=weight, groups=groups)


def chain(first: AffineMap, second: AffineMap) -> AffineMap:
    """The map that computes ``second(first(x))``.

    Raises:
        InexactError: If no convolution computes that, borders included.
    """
    if isinstance(first, Scaling) and isinstance(second, Scaling):
        return Scaling(first.factor * second.factor)
    if second == Scaling():
        return first
    if first == Scaling():
        return second
    if isinstance(first, Pooling) and isinstance(second, ConvMap):
        first = make_pooling(first, second, second.num_inputs)
    if isinstance(second, Pooling) and isinstance(first, ConvMap):
        second = make_pooling(second, first, len(first.weight))
    if isinstance(first, Pooling) or isinstance(second, Pooling):
        raise InexactError('no layer tells the number of channels')
    if isinstance(second, Scaling):
        assert isinstance(first, ConvMap)
        return scale(first, second.factor)
    if isinstance(first, Scaling):
        return replace(second, weight=second.weight * first.factor)
    if first.num_axes != second.num_axes or first.weight.shape[0] != second.num_inputs:
        raise InexactError('the layers do not fit together')
    if second.is_padded and (first.bias != 0).any():
        raise InexactError('a layer with a bias stands before a padded one: the border has no bias')
    if second.is_padded and not (first.is_pointwise and set(first.stride) <= {1}):
        raise InexactError('two convolutions that look at neighbours follow each other with padding between them')
    groups = math.gcd(first.groups, second.groups)
    first, second = regroup(first, groups), regroup(second, groups)
    weight, step = _chain_kernels(first, second, groups)
    sums = second.weight.reshape(*second.weight.shape[:2], -1).sum(2).reshape(groups, -1, second.weight.shape[1])
    bias = torch.einsum('goi,gi->go', sums, first.bias.reshape(groups, -1)).flatten() + second.bias
    axes = zip(first.start, first.stride, second.start, strict=True)
    # a tap of the second map at place t of the first's output is at t * stride + start of its input
    start = tuple(a + stride * b for a, stride, b in axes)
    stride = tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
    slack = tuple(a + s * b for a, s, b in zip(first.slack, first.stride, second.slack, strict=True))
    mode = second.padding_mode if second.is_padded else first.padding_mode
    return ConvMap(weight, bias, groups, stride, start, step, slack, mode)


def _chain_kernels(first: ConvMap, second: ConvMap, groups: int) -> tuple[Tensor, tuple[int, ...]]:
    """The kernel of a chain, and its step: every tap of the second over every tap of the first."""
    stretched = tuple(d * stride for d, stride in zip(second.step, first.stride, strict=True))
    step = tuple(
        math.gcd(a if k > 1 else 0, b if n > 1 else 0) or 1
        for a, k, b, n in zip(first.step, first.size, stretched, second.size, strict=True)
    )
    size = tuple(
        ((k - 1) * a + (n - 1) * b) // d + 1
        for a, k, b, n, d in zip(first.step, first.size, stretched, second.size, step, strict=True)
    )
    inputs = first.weight.shape[1]
    weight = first.weight.new_zeros(second.weight.shape[0], inputs, *size)
    by_group = second.weight.reshape(groups, -1, *second.weight.shape[1:])
    first_by_group = first.weight.reshape(groups, -1, *first.weight.shape[1:])
    for tap in _places(second.size):
        kernel = torch.einsum('gom,gmi...->goi...', by_group[(..., *tap)], first_by_group).flatten(0, 1)
        where = tuple(
            slice(t * b // d, t * b // d + (k - 1) * a // d + 1, max(a // d, 1))
            for t, a, b, k, d in zip(tap, first.step, stretched, first.size, step, strict=True)
        )
        weight[(slice(None), slice(None), *where)] += kernel
    return weight, step


def _places(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [tuple(place) for place in torch.cartesian_prod(*map(torch.arange, size)).reshape(-1, len(size)).tolist()]


def _join_axes(start: int, step: int, size: int, start2: int, step2: int, size2: int) -> tuple[int, int, int]:
    """Start, step and size of a row of taps in which those of two rows are."""
    first = min(start, start2)
    last = max(start + step * (size - 1), start2 + step2 * (size2 - 1))
    steps = [each for each, number in ((step, size), (step2, size2)) if number > 1]
    joined = math.gcd(start - start2, *steps) or 1
    return first, joined, (last - first) // joined + 1


def _join_modes(one: ConvMap, other: ConvMap) -> str:
    modes = {each.padding_mode for each in (one, other) if each.is_padded} or {'zeros'}
    if len(modes) > 1:
        raise InexactError(f'the paths pad in different ways: {" and ".join(sorted(modes))}')
    return modes.pop()


def _spread(one: ConvMap, start: tuple[int, ...], step: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """The kernel of ``one`` on a larger row of taps."""
    weight = one.weight.new_zeros(*one.weight.shape[:2], *size)
    axes = zip(one.start, one.step, one.size, start, step, strict=True)
    where = tuple(
        slice((a - b) // e, (a - b) // e + (k - 1) * d // e + 1, max(d // e, 1) if k > 1 else 1)
        for a, d, k, b, e in axes
    )
    weight[(slice(None), slice(None), *where)] = one.weight
    return weight


CONVS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def make_layer(one: ConvMap, dtype: torch.dtype) -> nn.Module:
    """The convolution that computes a map, rounded once to ``dtype``.

    Raises:
        InexactError: If torch has no such layer: the padding differs from side to side, or is negative.
    """
    one = _make_even(one)
    padding = [left for left, _ in one.padding]
    conv = CONVS[one.num_axes](
        one.num_inputs,
        one.weight.shape[0],
        one.size,
        one.stride,
        padding,
        one.step,
        one.groups,
        padding_mode=one.padding_mode,
        device='meta',
    )
    conv = conv.to(dtype).to_empty(device=one.weight.device)
    with torch.no_grad():
        conv.weight.copy_(one.weight)
        conv.bias.copy_(one.bias)
    return conv


def _make_even(one: ConvMap) -> ConvMap:
    """Add taps of zero until the padding is the same on both sides."""
    weight, start = one.weight, list(one.start)
    for axis, (left, right) in enumerate(one.padding):
        taps, rest = divmod(abs(left - right), one.step[axis])
        if rest or max(left, right) < 0 or (taps and one.padding_mode != 'zeros'):
            raise InexactError('the padding differs from side to side')
        shape = list(weight.shape)
        shape[axis + 2] = taps
        zeros = weight.new_zeros(shape)
        if left < right:
            weight, start[axis] = torch.cat([zeros, weight], axis + 2), -right
        elif taps:
            weight = torch.cat([weight, zeros], axis + 2)
    return replace(one, weight=weight, start=tuple(start))

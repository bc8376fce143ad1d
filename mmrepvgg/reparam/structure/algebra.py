"""Sums and chains of affine maps, exact for inputs of all sizes, borders included."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .maps import (
    LAYER_MAPS,
    AffineMap,
    ConvMap,
    CustomMap,
    Pooling,
    Scaling,
    TransposedMap,
    make_channel_scale,
    make_pooling,
)

LayerMap = ConvMap | TransposedMap | CustomMap


class InexactError(Exception):
    """Two maps have no exact sum or chain that is one convolution; the text says why."""


def add(one: AffineMap, other: AffineMap) -> AffineMap:
    """The map that is the sum of two.

    Raises:
        InexactError: If no convolution computes that for inputs of all sizes.
    """
    if isinstance(one, Scaling) and isinstance(other, Scaling):
        return Scaling(one.factor + other.factor)
    if isinstance(one, CustomMap) or isinstance(other, CustomMap):
        raise InexactError('the places at which a branch looks are not known')
    if isinstance(one, TransposedMap) or isinstance(other, TransposedMap):
        return _add_transposed(one, other)
    if not isinstance(one, ConvMap):
        one, other = other, one
    if not isinstance(one, ConvMap):
        raise InexactError('no layer tells the number of channels')
    if isinstance(other, Pooling):
        other = make_pooling(other, one, one.num_inputs)
    if isinstance(other, Scaling):
        other = _make_identity(one, other.factor)
    if one.weight.shape[0] != other.weight.shape[0] or one.num_inputs != other.num_inputs:
        raise InexactError('the branches have other numbers of channels')
    if one.num_axes != other.num_axes:
        raise InexactError('the branches have other numbers of dimensions')
    if one.stride != other.stride or one.slack != other.slack:
        raise InexactError('the branches look at other pixels: their strides or paddings differ')
    mode = _join_modes(one, other)
    groups = math.gcd(one.groups, other.groups)
    one, other = regroup(one, groups), regroup(other, groups)
    axes = zip(one.start, one.step, one.size, other.start, other.step, other.size, strict=True)
    taps = [_join_axes(*axis) for axis in axes]
    start, step, size = (tuple(each) for each in zip(*taps, strict=True)) if taps else ((), (), ())
    weight = _spread(one, start, step, size) + _spread(other, start, step, size)
    return ConvMap(weight, _add_biases(one.bias, other.bias), groups, one.stride, start, step, one.slack, mode)


def _add_transposed(one: AffineMap, other: AffineMap) -> TransposedMap:
    if not (isinstance(one, TransposedMap) and isinstance(other, TransposedMap)):
        raise InexactError('a transposed convolution is added to what is none')
    if one.weight.shape != other.weight.shape or (one.groups, one.geometry) != (other.groups, other.geometry):
        raise InexactError('transposed convolutions of other sizes, strides or paddings are added')
    return replace(one, weight=one.weight + other.weight, bias=_add_biases(one.bias, other.bias))


def _add_biases(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _make_identity(like: ConvMap, factor: float) -> ConvMap:
    """The identity times ``factor`` with the channels, device and axes of ``like``."""
    return make_channel_scale(like.weight.new_full((like.num_inputs,), factor), None, like.num_axes)


def regroup(one: ConvMap, groups: int) -> ConvMap:
    """The same map with fewer groups, which must divide those that it has."""
    merged = one.groups // groups
    if merged == 1:
        return one
    inputs = one.weight.shape[1]
    # (groups, merged, C_out of a group, C_in of a group, ...), each group on the diagonal of those with which it merges
    parts = one.weight.unflatten(0, (groups, merged, -1))
    weight = parts.new_zeros(*parts.shape[:3], merged, inputs, *one.size)
    weight.diagonal(dim1=1, dim2=3).copy_(parts.movedim(1, -1))
    weight = weight.flatten(0, 2).flatten(1, 2)
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
        assert isinstance(first, LAYER_MAPS)
        return _scale(first, second.factor)
    if isinstance(first, Scaling):
        return replace(second, weight=second.weight * first.factor)
    if not isinstance(second, ConvMap):
        raise InexactError('a layer stands before a transposed convolution, or one of another kind')
    if not isinstance(first, ConvMap):
        return _scale_outputs(first, second)
    if first.num_axes != second.num_axes or first.weight.shape[0] != second.num_inputs:
        raise InexactError('the layers do not fit together')
    _check_border(first, second)
    groups = math.gcd(first.groups, second.groups)
    first, second = regroup(first, groups), regroup(second, groups)
    weight, step = _chain_kernels(first, second, groups)
    # a tap of the second map at place t of the first's output is at t * stride + start of its input
    axes = zip(first.start, first.stride, second.start, strict=True)
    start = tuple(a + stride * b for a, stride, b in axes)
    stride = tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
    slack = tuple(a + s * b for a, s, b in zip(first.slack, first.stride, second.slack, strict=True))
    mode = second.padding_mode if second.is_padded else first.padding_mode
    return ConvMap(weight, _chain_biases(first, second, groups), groups, stride, start, step, slack, mode)


def _scale(one: LayerMap, factor: float) -> AffineMap:
    return replace(one, weight=one.weight * factor, bias=None if one.bias is None else one.bias * factor)


def _scale_outputs(first: TransposedMap | CustomMap, second: ConvMap) -> AffineMap:
    """A layer with a batch norm, or another scale for each channel, behind it."""
    if not second.is_channel_scale:
        raise InexactError('a layer that mixes channels stands behind a transposed convolution, or one of another kind')
    if first.num_axes != second.num_axes or first.num_outputs != second.num_outputs:
        raise InexactError('the layers do not fit together')
    factors, tail = second.weight.flatten(), (1,) * first.num_axes
    if isinstance(first, TransposedMap):
        by_group = first.weight.unflatten(0, (first.groups, -1))
        weight = (by_group * factors.reshape(first.groups, 1, -1, *tail)).flatten(0, 1)
    else:
        weight = first.weight * factors.reshape(-1, 1, *tail)
    bias = None if first.bias is None else first.bias * factors
    return replace(first, weight=weight, bias=_add_biases(bias, second.bias))


def _check_border(first: ConvMap, second: ConvMap) -> None:
    """Padding of the second layer is padding of the input, too, only if the first one lets its values through."""
    if not second.is_padded:
        return
    is_zero = second.padding_mode == 'zeros'
    if is_zero and first.bias is not None:
        raise InexactError('a layer with a bias stands before a padded one: the border has no bias')
    if not first.is_pointwise or (not is_zero and set(first.stride) != {1}):
        raise InexactError('two convolutions that look at neighbours follow each other with padding between them')


def _chain_biases(first: ConvMap, second: ConvMap, groups: int) -> Tensor | None:
    if first.bias is None:
        return second.bias
    sums = second.weight.flatten(2).sum(2) if second.num_axes else second.weight
    bias = torch.einsum('goi,gi->go', sums.unflatten(0, (groups, -1)), first.bias.unflatten(0, (groups, -1))).flatten()
    return _add_biases(bias, second.bias)


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
    if weight.is_meta:
        return weight, step
    by_group = second.weight.unflatten(0, (groups, -1))
    first_by_group = first.weight.unflatten(0, (groups, -1))
    for tap in _places(second.size):
        kernel = torch.einsum('gom,gmi...->goi...', by_group[(..., *tap)], first_by_group).flatten(0, 1)
        where = tuple(
            slice(t * b // d, t * b // d + (k - 1) * a // d + 1, max(a // d, 1))
            for t, a, b, k, d in zip(tap, first.step, stretched, first.size, step, strict=True)
        )
        weight[(slice(None), slice(None), *where)] += kernel
    return weight, step


def _places(size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, size))


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
        raise InexactError(f'the branches pad in different ways: {" and ".join(sorted(modes))}')
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

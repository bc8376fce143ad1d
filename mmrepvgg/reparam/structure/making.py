"""The layer of torch that computes a map."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .algebra import InexactError, LayerMap
from .maps import AffineMap, ConvMap, CustomMap, TransposedMap

_CONVS: tuple[type[Any], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[type[Any], ...] = (nn.Module, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def make_even(one: ConvMap) -> ConvMap:
    """Add taps of zero until the padding is the same on both sides, as torch's layers have it.

    Raises:
        InexactError: If that can't be: the padding is negative, or is not in steps of the dilation.
    """
    weight, start = one.weight, list(one.start)
    for axis, (left, right) in enumerate(one.padding):
        taps, rest = divmod(abs(left - right), one.step[axis])
        if rest or max(left, right) < 0 or (taps and one.padding_mode != 'zeros'):
            raise InexactError('the padding of the one convolution would differ from side to side')
        shape = list(weight.shape)
        shape[axis + 2] = taps
        zeros = weight.new_zeros(shape)
        if left < right:
            weight, start[axis] = torch.cat([zeros, weight], axis + 2), -right
        elif taps:
            weight = torch.cat([weight, zeros], axis + 2)
    return replace(one, weight=weight, start=tuple(start))


def make_layer(one: AffineMap, dtype: torch.dtype) -> nn.Module:
    """The layer that computes a map, rounded once to ``dtype``.

    Raises:
        InexactError: If torch has no such layer.
        OverflowError: If a number is too large for ``dtype``.
    """
    if isinstance(one, CustomMap):
        return _fill(_copy_empty(one), one, dtype)
    if isinstance(one, TransposedMap):
        stride, padding, output_padding, dilation = one.geometry
        layer = _TRANSPOSED[one.num_axes](
            one.weight.shape[0],
            one.num_outputs,
            tuple(one.weight.shape[2:]),
            stride,
            padding,
            output_padding,
            one.groups,
            one.bias is not None,
            dilation,
            device='meta',
        )
    else:
        assert isinstance(one, ConvMap)
        one = make_even(one)
        layer = _make_conv(one, [left for left, _ in one.padding])
    return _fill(layer.to(dtype).to_empty(device=one.weight.device), one, dtype)


def _copy_empty(one: CustomMap) -> Any:
    layer = copy.deepcopy(one.layer)
    if one.bias is not None and layer.bias is None:
        layer.bias = nn.Parameter(torch.empty_like(layer.weight[:, 0].flatten(1)[:, 0]))
    return layer


@torch.no_grad()
def _fill(layer: Any, one: LayerMap, dtype: torch.dtype) -> nn.Module:
    layer.weight.copy_(one.weight)
    if one.bias is not None:
        layer.bias.copy_(one.bias)
    if not one.weight.is_meta and any(
        number.isfinite().all() and not rounded.isfinite().all()
        for number, rounded in ((one.weight, layer.weight), (one.bias, layer.bias))
        if number is not None
    ):
        raise OverflowError(
            f'the kernel of a fused layer is too large for {dtype}, {torch.finfo(dtype).max:.0f} at most; fuse the '
            'model in float32, and then take bfloat16'
        )
    return layer


def _make_conv(one: ConvMap, padding: Sequence[int]) -> Any:
    has_bias = one.bias is not None
    if not one.num_axes:
        return nn.Linear(one.num_inputs, one.weight.shape[0], has_bias, device='meta')
    return _CONVS[one.num_axes](
        one.num_inputs,
        one.weight.shape[0],
        one.size,
        one.stride,
        tuple(padding),
        one.step,
        one.groups,
        has_bias,
        one.padding_mode,
        device='meta',
    )

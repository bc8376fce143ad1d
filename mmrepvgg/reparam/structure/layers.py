"""Which affine map a single layer computes in eval mode."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.fusion import FusionError, get_norm_scale_shift
from .maps import AffineMap, ConvMap, InexactError, Pooling, Scaling, make_channel_scale, place

_CONVS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_POOLS = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
_NORMS = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
# They return their input in eval mode.
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is to be taken as one layer, and not as a block of others."""
    try:
        return describe(module) is not None
    except InexactError:
        return type(module).__module__.startswith('torch.nn')


@torch.no_grad()
def describe(layer: nn.Module) -> AffineMap | None:
    """The map that ``layer`` computes, or None if it is no map that a convolution computes.

    Raises:
        InexactError: If it is a linear map, but none that a convolution computes for inputs of all sizes.
    """
    if isinstance(layer, _NOTHING):
        return Scaling()
    for kind, num_axes in _CONVS.items():
        if isinstance(layer, kind):
            return _describe_conv(layer, kind, num_axes)
    if isinstance(layer, _BatchNorm):
        return _describe_norm(layer)
    for kind, num_axes in _POOLS.items():
        if type(layer) is kind:
            return _describe_pool(layer, num_axes)
    return None


def _describe_conv(conv: Any, kind: type[nn.Module], num_axes: int) -> ConvMap | None:
    if type(conv).forward is not kind.forward or type(conv)._conv_forward is not kind._conv_forward:  # type: ignore
        return None
    weight = conv.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().double()
    if conv.padding == 'valid':
        left = right = (0,) * num_axes
    elif conv.padding == 'same':
        totals = [d * (k - 1) for d, k in zip(conv.dilation, weight.shape[2:], strict=True)]
        left = tuple(total // 2 for total in totals)
        right = tuple(total - total // 2 for total in totals)
    else:
        left = right = tuple(conv.padding)
    return place(weight, bias, conv.groups, conv.stride, left, right, conv.dilation, conv.padding_mode)


def _describe_norm(norm: _BatchNorm) -> ConvMap | None:
    num_axes = next((number for kind, number in _NORMS.items() if isinstance(norm, kind)), 2)
    try:
        scale, shift = get_norm_scale_shift(norm)
    except FusionError as error:
        raise InexactError(str(error)) from None
    return make_channel_scale(scale, shift, num_axes)


def _describe_pool(pool: Any, num_axes: int) -> Pooling:
    pair = lambda value: tuple(value) if isinstance(value, tuple | list) else (value,) * num_axes  # noqa: E731
    size, stride, padding = pair(pool.kernel_size), pair(pool.stride or pool.kernel_size), pair(pool.padding)
    if pool.ceil_mode:
        raise InexactError('average pooling with ceil_mode divides by other numbers at the border')
    if any(padding) and not pool.count_include_pad:
        raise InexactError('average pooling that does not count its padding divides by other numbers at the border')
    if getattr(pool, 'divisor_override', None):
        raise InexactError('average pooling with a divisor of its own')
    return Pooling(size, stride, padding)

"""Which affine map a single layer computes in eval mode."""

import copy
import math
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

from ...models.fusion import FusionError, copy_for_probing, get_conv_weight, get_norm_scale_shift
from .algebra import InexactError
from .maps import (
    AffineMap,
    ConvMap,
    CustomMap,
    Pooling,
    Scaling,
    TransposedMap,
    make_channel_scale,
    make_pointwise,
    place,
)
from .padded_norms import find_padding, get_norm

_CONVS: dict[type[Any], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_TRANSPOSED: tuple[type[Any], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_POOLS: dict[type[Any], int] = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
# For how many axes a norm is. Others, such as SyncBatchNorm, take any number.
_NORMS = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
# They return their input in eval mode.
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)

# The layers whose place one convolution can take.
FUSED_LAYERS: tuple[type[Any], ...] = (nn.Linear, *_CONVS, *_TRANSPOSED)


class UnknownLayerError(InexactError):
    """A layer of which nobody knows whether it is linear."""


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is to be taken as one layer, and not as code that calls others."""
    try:
        return bool(describe(module, numbers=False))
    except InexactError:
        return type(module).__module__.startswith('torch.nn.')


def has_hooks(module: Any) -> bool:
    """Whether somebody's function is called with what goes into ``module``, or comes out."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


@torch.no_grad()
def describe(layer: nn.Module, numbers: bool = True) -> list[AffineMap]:
    """The map that ``layer`` computes: one for each number of axes, if it takes several. Empty if it is none.

    Args:
        layer: The layer.
        numbers: Whether the map has its numbers, or only their shapes.

    Raises:
        InexactError: If it is linear, but no map that a convolution computes for inputs of all sizes.
    """
    if 'forward' in vars(layer):
        raise UnknownLayerError('it has a forward of its own')
    if type(layer) in _NOTHING:
        return [Scaling()]
    if isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward:
        return [make_pointwise(_read(layer.weight, numbers), _read_bias(layer, numbers), 1, 0)]
    for kind, num_axes in _CONVS.items():
        if isinstance(layer, kind):
            return [_describe_conv(layer, kind, num_axes, numbers)]
    for kind in _TRANSPOSED:
        if isinstance(layer, kind) and type(layer).forward is kind.forward:
            return [_describe_transposed(layer, numbers)]
    if isinstance(layer, _BatchNorm):
        return _describe_norm(layer)
    for kind, num_axes in _POOLS.items():
        if type(layer) is kind:
            return [_describe_pool(layer, num_axes)]
    padding = find_padding(layer)
    if any(padding):
        scale, shift = _read_norm(get_norm(layer))
        return [make_conv(scale.view(-1, 1, 1, 1), shift, padding=padding, groups=len(scale))]
    return []


def _read(parameter: Tensor, numbers: bool) -> Tensor:
    if isinstance(parameter, UninitializedParameter):
        raise InexactError('its weights have no shape yet; run the model once')
    if not parameter.is_floating_point():
        raise UnknownLayerError(f'its numbers are {parameter.dtype}')
    return parameter.detach().to(None if numbers else 'meta', torch.float64)


def _read_bias(layer: Any, numbers: bool) -> Tensor | None:
    return None if layer.bias is None else _read(layer.bias, numbers)


def _describe_conv(conv: Any, kind: type[Any], num_axes: int, numbers: bool) -> ConvMap | CustomMap:
    weight, bias = _read(conv.weight, numbers), _read_bias(conv, numbers)
    if not (type(conv).forward is kind.forward and type(conv)._conv_forward is kind._conv_forward):
        match _judge(conv, num_axes):
            case 'scaled':
                return CustomMap(weight, bias, conv)
            case 'unknown':
                raise UnknownLayerError(f'what {type(conv).__name__} computes is not known')
        weight = get_conv_weight(conv).detach()
    return make_conv(weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)


def make_conv(
    weight: Tensor,
    bias: Tensor | None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = 'zeros',
) -> ConvMap:
    """The map of a convolution with the arguments of ``torch.nn.functional.conv2d``."""
    num_axes = weight.dim() - 2
    steps = _spread(dilation, num_axes)
    if padding == 'valid':
        left = right = (0,) * num_axes
    elif padding == 'same':
        totals = [d * (k - 1) for d, k in zip(steps, weight.shape[2:], strict=True)]
        left = tuple(total // 2 for total in totals)
        right = tuple(total - total // 2 for total in totals)
    else:
        left = right = _spread(padding, num_axes)
    return place(weight, bias, groups, _spread(stride, num_axes), left, right, steps, padding_mode)


def _spread(value: Any, num_axes: int) -> tuple[int, ...]:
    value = tuple(value) if isinstance(value, tuple | list) else (value,)
    return value * num_axes if len(value) == 1 else value


# What is known of convolutions of other kinds: asking is slow.
_VERDICTS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def _judge(conv: Any, num_axes: int) -> str:
    """What a layer with a forward of its own computes.

    Returns:
        ``'plain'`` if its kernel is known, ``'scaled'`` if its outputs are linear in its weights, or ``'unknown'``.
    """
    if conv not in _VERDICTS:
        if num_axes == 2 and _has_known_kernel(conv):
            _VERDICTS[conv] = 'plain'
        else:
            _VERDICTS[conv] = 'scaled' if _is_scaled_by_weights(conv, num_axes) else 'unknown'
    return _VERDICTS[conv]


def _has_known_kernel(conv: Any) -> bool:
    """Whether its kernel is that of a plain convolution, or of a kind such as weight standardisation."""
    try:
        get_conv_weight(conv)
    except Exception:  # the layer's own code is run
        return False
    return True


def _is_scaled_by_weights(conv: Any, num_axes: int) -> bool:
    """Whether the outputs of a layer are linear in its weights and its bias, each channel by itself."""
    scaled = copy_for_probing(conv)
    plain = copy.deepcopy(scaled)
    factors = torch.linspace(-2, 3, len(conv.weight), dtype=torch.float64)
    plain.bias, scaled.bias = None, nn.Parameter(factors)
    tail = (1,) * num_axes
    scaled.weight.mul_(factors.view(-1, 1, *tail))
    size = [d * (k - 1) + 3 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    x = torch.linspace(-10, 10, conv.in_channels * math.prod(size), dtype=torch.float64)
    x = x.reshape(1, conv.in_channels, *size)
    try:
        expected, actual = plain(x), scaled(x)
    except Exception:  # the layer's own code is run
        return False
    shifts = factors.view(1, -1, *tail)
    return expected.shape == actual.shape and torch.allclose(actual, expected * shifts + shifts)


def _describe_transposed(conv: Any, numbers: bool) -> TransposedMap:
    geometry = tuple(tuple(each) for each in (conv.stride, conv.padding, conv.output_padding, conv.dilation))
    return TransposedMap(_read(conv.weight, numbers), _read_bias(conv, numbers), conv.groups, geometry)


def _read_norm(norm: nn.Module) -> tuple[Tensor, Tensor]:
    if norm.training:
        raise UnknownLayerError('it stays in training mode')
    try:
        return get_norm_scale_shift(norm)
    except FusionError as error:
        raise UnknownLayerError(str(error)) from None
    except Exception as error:  # the layer's own code is run
        raise UnknownLayerError(f'what {type(norm).__name__} computes is not known') from error


def _describe_norm(norm: _BatchNorm) -> list[AffineMap]:
    scale, shift = _read_norm(norm)
    axes = next(([number] for kind, number in _NORMS.items() if isinstance(norm, kind)), [1, 2, 3])
    if 1 in axes:
        axes = [0, *axes]  # the caller knows whether its inputs are (N, C)
    return [make_channel_scale(scale, shift, number) for number in axes]


def _describe_pool(pool: Any, num_axes: int) -> Pooling:
    if pool.ceil_mode:
        raise InexactError('average pooling with ceil_mode divides by other numbers at the border')
    if any(_spread(pool.padding, num_axes)) and not pool.count_include_pad:
        raise InexactError('average pooling that does not count its padding divides by other numbers at the border')
    if getattr(pool, 'divisor_override', None):
        raise InexactError('average pooling with a divisor of its own')
    return Pooling(*(_spread(each, num_axes) for each in (pool.kernel_size, pool.stride, pool.padding)))

"""Which affine map a single node of an ONNX graph computes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, helper
from torch import Tensor

from .algebra import InexactError
from .maps import AffineMap, Pooling, TransposedMap, make_channel_scale, make_pointwise, place


@dataclass(frozen=True)
class Given:
    """What is known about a node.

    Attributes:
        attributes: Attributes of the node.
        numbers: Its constant inputs behind the first input; None for one that is left out.
        shape: Shape of the first input, None for a free axis; None if nothing tells it.
        opset: Version of the operators.
    """

    attributes: dict[str, Any]
    numbers: list[np.ndarray | None]
    shape: tuple[int | None, ...] | None
    opset: int

    @property
    def num_channels(self) -> int | None:
        return self.shape[1] if self.shape is not None and len(self.shape) > 1 else None

    def get_number(self, index: int) -> np.ndarray | None:
        return self.numbers[index] if index < len(self.numbers) else None


# The default of the norms: attributes are float32 numbers.
_EPSILON = float(np.float32(1e-5))

Describe = Callable[[Given], list[AffineMap]]


def get_attributes(node: NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def to_tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float64))


def _describe_conv(given: Given) -> list[AffineMap]:
    weight = to_tensor(_require(given, 0))
    axes = weight.dim() - 2
    stride, dilation = _get_axes(given, 'strides', axes), _get_axes(given, 'dilations', axes)
    left, right = _find_pads(given, tuple(weight.shape[2:]), stride, dilation)
    groups = given.attributes.get('group', 1)
    return [place(weight, _read_bias(given), groups, stride, left, right, dilation)]


def _describe_transposed(given: Given) -> list[AffineMap]:
    others = {name: value for name, value in given.attributes.items() if name != 'group'}
    # nothing of its geometry changes: the new node gets the same attributes
    geometry: Any = tuple(sorted((name, _freeze(value)) for name, value in others.items()))
    groups = given.attributes.get('group', 1)
    return [TransposedMap(to_tensor(_require(given, 0)), _read_bias(given), groups, geometry)]


def _describe_gemm(given: Given) -> list[AffineMap]:
    weight = to_tensor(_require(given, 0))
    if given.shape is None or len(given.shape) != 2 or given.attributes.get('transA', 0) or weight.dim() != 2:
        return []
    weight = weight if given.attributes.get('transB', 0) else weight.T
    bias = given.get_number(1)
    if bias is not None:
        if bias.shape not in ((), (1,), (1, 1), (len(weight),), (1, len(weight))):
            return []
        bias = given.attributes.get('beta', 1.0) * np.broadcast_to(bias.astype(np.float64).flatten(), len(weight))
    factor = given.attributes.get('alpha', 1.0)
    return [make_pointwise(weight * factor, None if bias is None else to_tensor(bias), 1, 0)]


def _describe_matmul(given: Given) -> list[AffineMap]:
    return _describe_gemm(Given({}, given.numbers, given.shape, given.opset))


def _describe_norm(given: Given) -> list[AffineMap]:
    if given.attributes.get('training_mode', 0):
        raise InexactError('the norm takes its statistics from each batch: the file was exported in training mode')
    if not given.attributes.get('spatial', 1):
        return []
    gain, bias, mean, var = (to_tensor(_require(given, index)) for index in range(4))
    scale = gain * (var + given.attributes.get('epsilon', _EPSILON)).rsqrt()
    every = range(4) if given.shape is None else [len(given.shape) - 2]
    return [make_channel_scale(scale, bias - mean * scale, num_axes) for num_axes in every if num_axes >= 0]


def _describe_pool(given: Given) -> list[AffineMap]:
    size = tuple(given.attributes['kernel_shape'])
    stride, dilation = _get_axes(given, 'strides', len(size)), _get_axes(given, 'dilations', len(size))
    if given.attributes.get('ceil_mode', 0):
        raise InexactError('average pooling with ceil_mode divides by other numbers at the border')
    left, right = _find_pads(given, size, stride, dilation)
    if any(left + right) and not given.attributes.get('count_include_pad', 0):
        raise InexactError('average pooling that does not count its padding divides by other numbers at the border')
    channels = given.num_channels
    if channels is not None:
        weight = torch.full((channels, 1, *size), 1 / np.prod(size), dtype=torch.float64)
        return [place(weight, None, channels, stride, left, right, dilation)]
    return [Pooling(size, stride, left)] if left == right and set(dilation) == {1} else []


def _describe_pad(given: Given) -> list[AffineMap]:
    if given.attributes.get('mode', b'constant') != b'constant':
        raise InexactError('the padding repeats pixels of the image')
    if given.opset < 11:
        pads, value, axes = given.attributes['pads'], given.attributes.get('value', 0.0), None
    else:
        pads, value, axes = _require(given, 0).tolist(), given.get_number(1), given.get_number(2)
    if value is not None and np.any(value):
        raise InexactError('the padding is of another number than 0')
    if given.shape is None or given.num_channels is None:
        return []
    rank, number = len(given.shape), len(pads) // 2
    sides = np.zeros((2, rank), int)
    sides[:, range(number) if axes is None else axes.flatten()] = np.reshape(pads, (2, number))
    if sides[:, :2].any() or (sides < 0).any() or rank < 3:
        return []
    ones, (left, right) = (1,) * (rank - 2), sides[:, 2:].tolist()
    weight = torch.ones(given.num_channels, 1, *ones, dtype=torch.float64)
    return [place(weight, None, given.num_channels, ones, tuple(left), tuple(right), ones)]


def _require(given: Given, index: int) -> np.ndarray:
    number = given.get_number(index)
    assert number is not None
    return number


def _read_bias(given: Given) -> Tensor | None:
    """The bias of a convolution. One of zeros, as exporters write for none, does not stand in the way of padding."""
    bias = given.get_number(1)
    return to_tensor(bias) if bias is not None and bias.any() else None


def _freeze(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _get_axes(given: Given, name: str, num_axes: int) -> tuple[int, ...]:
    return tuple(given.attributes.get(name) or (1,) * num_axes)


def _find_pads(
    given: Given, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding on the left and on the right of each axis."""
    axes, way = len(size), given.attributes.get('auto_pad', b'NOTSET')
    if way == b'NOTSET':
        pads = tuple(given.attributes.get('pads') or (0,) * 2 * axes)
        return pads[:axes], pads[axes:]
    if way == b'VALID':
        return (0,) * axes, (0,) * axes
    lengths = given.shape[2:] if given.shape is not None else (None,) * axes
    totals = []
    for k, s, d, length in zip(size, stride, dilation, lengths, strict=True):
        if s == 1:
            totals.append((k - 1) * d)
        elif length is None:
            raise InexactError('its padding depends on the size of the input (auto_pad)')
        else:
            totals.append(max((-(-length // s) - 1) * s + (k - 1) * d + 1 - length, 0))
    less, more = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (less, more) if way == b'SAME_UPPER' else (more, less)


# By the operator: how to describe it.
LAYERS: dict[str, Describe] = {
    'Conv': _describe_conv,
    'ConvTranspose': _describe_transposed,
    'Gemm': _describe_gemm,
    'MatMul': _describe_matmul,
    'BatchNormalization': _describe_norm,
    'AveragePool': _describe_pool,
    'Pad': _describe_pad,
}
# Those whose place a new layer can take.
CONVS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')

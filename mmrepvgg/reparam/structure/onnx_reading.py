"""Read the steps of an ONNX graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from .maps import AffineMap, Pooling, make_channel_scale, place
from .steps import Constant, Step

_KINDS = {'Add': 'sum', 'Sub': 'difference', 'Mul': 'product'}


def read_onnx_steps(graph: onnx.GraphProto) -> list[Step]:
    """The steps of a graph, in its order; the origin of each is its node, and of an input its name."""
    reader = _Reader(graph)
    for node in graph.node:
        reader.read(node)
    return reader.steps


class _Reader:
    def __init__(self, graph: onnx.GraphProto):
        self.constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self.steps: list[Step] = []
        self.values: dict[str, Step] = {}
        for each in graph.input:
            if each.name not in self.constants:
                self._add(Step(each.name, [], origin=None), [each.name])
        self.outputs = {each.name for each in graph.output}

    def read(self, node: onnx.NodeProto) -> None:
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            return
        if node.op_type == 'Identity' and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        inputs = [self.values[name] for name in _list_inputs(node) if name in self.values]
        step = Step(node.name or node.output[0], inputs, origin=node)
        self._add(step, list(node.output))
        if len(node.output) == 1 or node.op_type in ('Dropout', 'BatchNormalization'):
            self._describe(node, step)
        # what the graph gives out must stay
        for name in node.output:
            if name in self.outputs:
                self.steps.append(Step(name, [step]))

    def _add(self, step: Step, names: list[str]) -> None:
        self.steps.append(step)
        self.values.update(dict.fromkeys(names, step))

    def _describe(self, node: onnx.NodeProto, step: Step) -> None:
        if not step.inputs:
            return
        if node.op_type in _KINDS:
            self._describe_operation(node, step)
        elif node.op_type in ('Identity', 'Dropout'):
            step.does = Constant(1.0, 'product')
        elif node.op_type in _LAYERS and len(step.inputs) == 1:
            numbers = [self.constants.get(name) for name in node.input[1:] if name]
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            if all(each is not None for each in numbers):
                described = _LAYERS[node.op_type](step, numbers, attributes)
                step.does = described or None
                step.is_conv = node.op_type == 'Conv' and bool(described)

    def _describe_operation(self, node: onnx.NodeProto, step: Step) -> None:
        kind = _KINDS[node.op_type]
        one, other = node.input
        if one in self.values and other in self.values:
            if kind != 'product':
                step.inputs, step.does = [self.values[one], self.values[other]], 1.0 if kind == 'sum' else -1.0
        elif one in self.values and other in self.constants:
            step.does = Constant(_to_tensor(self.constants[other]), kind)
        elif other in self.values and one in self.constants:
            kind = 'reversed' if kind == 'difference' else kind
            step.does = Constant(_to_tensor(self.constants[one]), kind)


def _list_inputs(node: onnx.NodeProto) -> list[str]:
    """The values that a node takes, those taken by the graphs within it, too."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += [name for inner in graph.node for name in _list_inputs(inner)]
    return names


def _to_tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _describe_conv(step: Step, numbers: list[Any], attributes: dict[str, Any]) -> list[AffineMap]:
    weight = _to_tensor(numbers[0])
    bias = _to_tensor(numbers[1]) if len(numbers) > 1 else weight.new_zeros(len(weight))
    axes = weight.dim() - 2
    pads = _get_pads(attributes, axes)
    if pads is None:
        step.reason = 'its padding depends on the size of the input (auto_pad)'
        return []
    stride, dilation = (tuple(attributes.get(name, [1] * axes)) for name in ('strides', 'dilations'))
    return [place(weight, bias, attributes.get('group', 1), stride, *pads, dilation)]


def _get_pads(attributes: dict[str, Any], axes: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    if attributes.get('auto_pad', b'NOTSET') == b'VALID':
        return (0,) * axes, (0,) * axes
    if attributes.get('auto_pad', b'NOTSET') != b'NOTSET':
        return None
    pads = tuple(attributes.get('pads', [0] * 2 * axes))
    return pads[:axes], pads[axes:]


def _describe_norm(step: Step, numbers: list[Any], attributes: dict[str, Any]) -> list[AffineMap]:
    if attributes.get('training_mode', 0):
        step.reason = 'the norm is in training mode'
        return []
    gain, bias, mean, var = map(_to_tensor, numbers)
    scale = gain * (var + attributes.get('epsilon', 1e-5)).rsqrt()
    return [make_channel_scale(scale, bias - mean * scale, num_axes) for num_axes in (1, 2, 3)]


def _describe_pool(step: Step, numbers: list[Any], attributes: dict[str, Any]) -> list[AffineMap]:
    size = tuple(attributes['kernel_shape'])
    pads = _get_pads(attributes, len(size))
    if (
        pads is None
        or pads[0] != pads[1]
        or attributes.get('ceil_mode', 0)
        or set(attributes.get('dilations', ())) - {1}
    ):
        step.reason = 'its padding depends on the size of the input, or differs from side to side'
        return []
    if any(pads[0]) and not attributes.get('count_include_pad', 0):
        step.reason = 'average pooling that does not count its padding divides by other numbers at the border'
        return []
    return [Pooling(size, tuple(attributes.get('strides', [1] * len(size))), pads[0])]


_LAYERS: dict[str, Callable[[Step, list[Any], dict[str, Any]], list[AffineMap]]] = {
    'Conv': _describe_conv,
    'BatchNormalization': _describe_norm,
    'AveragePool': _describe_pool,
}

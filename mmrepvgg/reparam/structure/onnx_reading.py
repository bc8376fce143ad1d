"""Read the steps of an ONNX graph."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from .algebra import InexactError
from .maps import AffineMap, Scaling, make_channel_scale, to_meta
from .onnx_constants import Constants
from .onnx_layers import CONVS, LAYERS, Given, get_attributes, to_tensor
from .onnx_values import ValueTypes, list_inputs
from .steps import Constant, Step

# Operators on two values, of which one may be a constant.
_KINDS = {'Add': 'sum', 'Sub': 'difference', 'Mul': 'product', 'Div': 'quotient'}


@dataclass(frozen=True, eq=False)
class Value:
    """Where the value of a step comes from.

    Attributes:
        name: Name of the value; empty for one within a node.
        node: The node that gives it; None for an input of the graph.
        num_inputs: For the sum of the first inputs of a node: how many these are.
    """

    name: str
    node: onnx.NodeProto | None = None
    num_inputs: int = 0


def read_graph(graph: onnx.GraphProto, opset: int, constants: Constants, types: ValueTypes) -> list[Step]:
    """The steps of a graph, in its order. The origin of each is a :class:`Value`. Constants are no steps.

    Args:
        graph: The graph.
        opset: Version of the operators.
        constants: Constants of the graph.
        types: Shapes and types of the model's values.
    """
    return _Reader(graph, opset, constants, types).read()


class _Reader:
    def __init__(self, graph: onnx.GraphProto, opset: int, constants: Constants, types: ValueTypes):
        self.opset, self.constants, self.types = opset, constants, types
        self.steps: list[Step] = []
        self._values: dict[str, Step] = {}
        self._graph = graph
        self._nodes = list(graph.node)
        self._names = Counter(node.name for node in self._nodes)
        self._takers = Counter(name for node in self._nodes for name in list_inputs(node))
        self._takers.update(each.name for each in graph.output)
        # how many nodes take a weight that are not constants themselves, as its shape is
        self._layers = Counter(name for node in self._nodes if not self._is_constant(node) for name in node.input)

    def read(self) -> list[Step]:
        for node in self._nodes:
            if not self._is_constant(node):
                self._read_node(node)
        for each in self._graph.output:  # what the graph gives out must stay
            if each.name in self._values:
                self.steps.append(Step(each.name, [self._values[each.name]]))
        return self.steps

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        return all(name in self.constants for name in node.output if name)

    def _read_node(self, node: onnx.NodeProto) -> None:
        inputs = [self._get_step(name) for name in list_inputs(node) if name not in self.constants]
        used = [name for name in node.output if name and self._takers.get(name)]
        step = Step(self._make_name(node), inputs, origin=Value(used[0] if len(used) == 1 else '', node))
        if len(used) == 1 and used[0] == node.output[0] and node.domain in ('', 'ai.onnx') and inputs:
            step = self._describe(node, step)
        self.steps.append(step)
        if len(used) == 1:
            self._values[used[0]] = step
            return
        for name in used:
            self.steps.append(Step(name, [step], origin=Value(name, node)))
            self._values[name] = self.steps[-1]

    def _make_name(self, node: onnx.NodeProto) -> str:
        """The name of a node for messages. Nodes need no name, and several may have the same."""
        if node.name and self._names[node.name] == 1:
            return node.name
        return f'{node.name or node.op_type} -> {next(filter(None, node.output), "")}'

    def _get_step(self, name: str) -> Step:
        """The step that gives a value. One that no node gives is an input, or comes from the graph around this one."""
        if name not in self._values:
            self._values[name] = Step(name, [], origin=Value(name))
            self.steps.append(self._values[name])
        return self._values[name]

    def _describe(self, node: onnx.NodeProto, step: Step) -> Step:
        if node.op_type in _KINDS and len(node.input) == 2 and self.types.is_float(node.output[0]):
            self._describe_operation(node, step)
        elif node.op_type == 'Sum' and len(step.inputs) == len(node.input):
            return self._describe_sum(node, step)
        elif node.op_type == 'Identity' or (node.op_type == 'Dropout' and self._does_nothing(node)):
            step.does = [Scaling()]
        elif node.op_type == 'Neg' and self.types.is_float(node.output[0]):
            step.does = [Scaling(-1.0)]
        elif node.op_type in LAYERS and node.input[0] not in self.constants:
            self._describe_layer(node, step)
        return step

    def _does_nothing(self, dropout: onnx.NodeProto) -> bool:
        """Whether a dropout lets all through: in training mode it does not."""
        if len(dropout.input) < 3 or not dropout.input[2]:
            return True
        mode = self.constants.get(dropout.input[2])
        return mode is not None and not mode.any()

    def _describe_sum(self, node: onnx.NodeProto, step: Step) -> Step:
        """A sum of any number of values, as sums of two."""
        if len(node.input) == 1:
            step.does = [Scaling()]
            return step
        for each in dict.fromkeys(step.inputs):
            each.users.remove(step)
        total, *others = step.inputs
        for number, each in enumerate(others, 2):
            origin = Value(node.output[0] if number == len(node.input) else '', node, number)
            total = Step(step.name, [total, each], does=1.0, origin=origin)
            if number < len(node.input):
                self.steps.append(total)
        return total

    def _describe_operation(self, node: onnx.NodeProto, step: Step) -> None:
        kind = _KINDS[node.op_type]
        one, other = node.input
        if one not in self.constants and other not in self.constants:
            if kind in ('sum', 'difference'):
                step.inputs = [self._values[one], self._values[other]]
                step.does = 1.0 if kind == 'sum' else -1.0
            return
        x, constant = (other, one) if one in self.constants else (one, other)
        if x == other and kind == 'quotient':
            return
        kind = 'reversed' if x == other and kind == 'difference' else kind
        array, shape = self.constants.get(constant), self.types.get_shape(x)
        if array is not None:
            step.does = _describe_constant(array.astype(np.float64), kind, shape)

    def _describe_layer(self, node: onnx.NodeProto, step: Step) -> None:
        names = list(node.input[1:])
        if not all(name in self.constants for name in names if name):
            if any(self.constants.is_quantized(name, self._nodes) for name in names):
                step.reason, step.is_linear = 'its weights are stored in a quantized form', True
            return
        describe = LAYERS[node.op_type]
        attributes, shape = get_attributes(node), self.types.get_shape(node.input[0])

        def load() -> list[AffineMap]:
            numbers = [self.constants.get(name) if name else None for name in names]
            if any(number is None for number, name in zip(numbers, names, strict=True) if name):
                return []
            return describe(Given(attributes, numbers, shape, self.opset))

        try:
            step.does = [to_meta(each) for each in load()] or None
            step.numbers = load
            step.is_conv = node.op_type in CONVS and step.does is not None
            if step.is_conv and self._layers[names[0]] > 1:
                raise InexactError('its weights are used by other nodes, too')
        except InexactError as error:
            step.reason, step.is_linear = str(error), not attributes.get('training_mode', 0)


def _describe_constant(
    array: np.ndarray, kind: str, shape: tuple[int | None, ...] | None
) -> list[AffineMap] | Constant | None:
    """What an operation with a constant does to a value of this shape."""
    if kind == 'quotient':
        with np.errstate(divide='ignore'):
            array, kind = 1 / array, 'product'
    if array.size == 1 and array.ndim <= (1 if shape is None else len(shape)):
        return Constant(array.item(), kind)
    if shape is None or len(shape) < 2 or array.ndim > len(shape):
        return None
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    # one number for each channel; the size of the value must not change
    if sizes[1] != array.size or shape[1] != array.size:
        return None
    numbers = to_tensor(array.flatten())
    ones = torch.ones_like(numbers)
    scale = {'product': numbers, 'reversed': -ones}.get(kind, ones)
    shift = {'product': None, 'difference': -numbers}.get(kind, numbers)
    return [make_channel_scale(scale, shift, len(shape) - 2)]

"""The constants of an ONNX graph: what is stored in it, and what its nodes make of that."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from .onnx_values import ValueTypes

# What they give is not the same each time, or is not exact: a weight that is stored in int8 stays so.
_NO_CONSTANTS = {
    *('Bernoulli', 'Dropout', 'Multinomial', 'RandomNormalLike', 'RandomUniformLike'),
    *('QuantizeLinear', 'DequantizeLinear', 'DynamicQuantizeLinear'),
}


class Constants:
    """The constants of a graph, by the names of their values. They are computed when they are asked for.

    Args:
        graph: The graph.
        opsets: Versions of the operators.
        types: Types of the values.
        outer: Constants of the graph around it.
    """

    def __init__(self, graph: onnx.GraphProto, opsets: list[Any], types: ValueTypes, outer: 'Constants | None' = None):
        self._opsets = opsets
        self._types = types
        self._outer = outer
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._computed: dict[str, np.ndarray | None] = {}
        for node in graph.node:
            if self._is_constant(node):
                self._nodes.update(dict.fromkeys(filter(None, node.output), node))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors or name in self._nodes or (self._outer is not None and name in self._outer)

    def get(self, name: str) -> np.ndarray | None:
        """The constant of this name; None if it can't be computed."""
        if name in self._tensors:
            return numpy_helper.to_array(self._tensors[name])
        if name in self._nodes:
            if name not in self._computed:
                self._compute(self._nodes[name])
            return self._computed[name]
        return None if self._outer is None else self._outer.get(name)

    def is_quantized(self, name: str, nodes: Iterable[onnx.NodeProto]) -> bool:
        """Whether a value that one of ``nodes`` gives is a stored one, rounded to int8 or the like."""
        makers = [node for node in nodes if name in node.output]
        return any(node.op_type == 'DequantizeLinear' and node.input[0] in self for node in makers)

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        if node.domain not in ('', 'ai.onnx') or node.op_type in _NO_CONSTANTS:
            return False
        if any(attribute.HasField('g') or attribute.graphs for attribute in node.attribute):
            return False
        names = _list_needed(node)
        return all(name in self for name in names) if names else node.op_type == 'Constant'

    def _compute(self, node: onnx.NodeProto) -> None:
        values = {name: self.get(name) for name in _list_needed(node)}
        if node.op_type == 'CastLike':
            (value,), dtype = values.values(), self._types.get_dtype(node.input[1])
            self._computed[node.output[0]] = None if value is None or dtype is None else value.astype(dtype)
            return
        found: list[Any] = [None] * len(node.output)
        if not any(value is None for value in values.values()):
            given, wanted = map(_make_infos, (values, node.output))
            model = helper.make_model(helper.make_graph([node], 'constant', given, wanted), opset_imports=self._opsets)
            try:
                found = ReferenceEvaluator(model).run(None, values)  # type: ignore[assignment]
            except Exception:  # an operator that it does not know, or numbers that make no sense
                found = [None] * len(node.output)
        self._computed.update(zip(node.output, found, strict=True))


def _list_needed(node: onnx.NodeProto) -> list[str]:
    """The values on which the outputs of a node depend; of a CastLike's second one it is the type only."""
    return [name for name in node.input[: 1 if node.op_type == 'CastLike' else None] if name]


def _make_infos(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_empty_tensor_value_info(name) for name in names]

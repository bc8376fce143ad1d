"""The values of an ONNX model: their names, shapes and types."""

import contextlib
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

Shape = tuple[int | None, ...]


def list_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs within a node: branches of If, the body of Loop or Scan."""
    return [graph for each in node.attribute for graph in ([each.g] if each.HasField('g') else each.graphs)]


def iterate_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs within its nodes."""
    yield graph
    for node in graph.node:
        for inner in list_graphs(node):
            yield from iterate_graphs(inner)


def list_inputs(node: onnx.NodeProto) -> list[str]:
    """The values that a node takes, those that the graphs within it take from outside, too."""
    names = [name for name in node.input if name]
    for graph in list_graphs(node):
        own = {each.name for each in (*graph.input, *graph.initializer)}
        taken = []
        for inner in graph.node:
            taken += [name for name in list_inputs(inner) if name not in own]
            own.update(inner.output)
        names += [*taken, *(each.name for each in graph.output if each.name not in own)]
    return names


class ValueTypes:
    """Shapes and types of the values, as far as the file and ONNX's own inference tell."""

    def __init__(self, model: onnx.ModelProto):
        # it fails for 2 GB and more, and for wrong shapes in the file; what the file says is what remains
        with contextlib.suppress(Exception):
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        self._types: dict[str, onnx.TypeProto.Tensor] = {}
        for graph in iterate_graphs(model.graph):
            for each in (*graph.input, *graph.output, *graph.value_info):
                if each.type.HasField('tensor_type'):
                    self._types[each.name] = each.type.tensor_type

    def get_shape(self, name: str) -> Shape | None:
        """Shape of a value, with None for free axes; None if nothing tells it."""
        found = self._types.get(name)
        if found is None or not found.HasField('shape'):
            return None
        return tuple(each.dim_value if each.HasField('dim_value') else None for each in found.shape.dim)

    def get_dtype(self, name: str) -> np.dtype | None:
        """Type of the numbers of a value; None if nothing tells it."""
        found = self._types.get(name)
        return helper.tensor_dtype_to_np_dtype(found.elem_type) if found is not None and found.elem_type else None

    def is_float(self, name: str) -> bool:
        """Whether a value consists of floating-point numbers; yes, if nothing tells it."""
        found = self._types.get(name)
        return found is None or not found.elem_type or found.elem_type in _FLOATS


_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def list_names(graph: onnx.GraphProto) -> set[str]:
    """All names that a graph and the graphs within it have given to nodes, values and tensors."""
    names: set[str] = set()
    for each in iterate_graphs(graph):
        names.update(tensor.name for tensor in (*each.initializer, *each.input, *each.output))
        names.update(tensor.values.name for tensor in each.sparse_initializer)
        for node in each.node:
            names.update((node.name, *node.input, *node.output))
    return names - {''}

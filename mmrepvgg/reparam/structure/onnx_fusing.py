"""Fuse an ONNX model that somebody exported with its branches and norms."""

from dataclasses import dataclass, field

import numpy as np
import onnx

from .onnx_constants import Constants
from .onnx_reading import read_graph
from .onnx_rewriting import FusedNodes, clear, rewrite
from .onnx_values import ValueTypes, iterate_graphs, list_graphs, list_names
from .search import search


@dataclass
class ModelFusion:
    """What was done to a model.

    Attributes:
        fused: What became one node.
        branches: Sums of parallel linear branches that are left, each with the reason.
        left: Other linear nodes that are left, each with the reason.
    """

    fused: list[FusedNodes] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    @property
    def dtypes(self) -> set[np.dtype]:
        """Types of the numbers in the new nodes."""
        return {each.dtype for each in self.fused}


def fuse_model(model: onnx.ModelProto, types: ValueTypes) -> ModelFusion:
    """Put one convolution, or one Gemm, into the place of each pattern of ``model``, in place.

    Args:
        model: A model of opset 7 or later without functions, with all its weights.
        types: Shapes and types of its values.
    """
    result = ModelFusion()
    _fuse_graph(model, model.graph, None, types, list_names(model.graph), result)
    if result.fused:
        for graph in reversed(list(iterate_graphs(model.graph))):  # the inner ones first
            clear(graph)
    return result


def get_opset(model: onnx.ModelProto) -> int:
    """Version of the ONNX operators; 0 if the model has none."""
    return max((each.version for each in model.opset_import if each.domain in ('', 'ai.onnx')), default=0)


def count_nodes(model: onnx.ModelProto, *kinds: str) -> int:
    """Number of nodes of these operators, or of all, those in graphs within nodes, too."""
    return sum(not kinds or node.op_type in kinds for graph in iterate_graphs(model.graph) for node in graph.node)


def _fuse_graph(
    model: onnx.ModelProto,
    graph: onnx.GraphProto,
    outer: Constants | None,
    types: ValueTypes,
    names: set[str],
    result: ModelFusion,
) -> None:
    constants = Constants(graph, list(model.opset_import), types, outer)
    for node in graph.node:
        for inner in list_graphs(node):
            _fuse_graph(model, inner, constants, types, names, result)
    steps = read_graph(graph, get_opset(model), constants, types)
    found = search(steps)
    result.branches |= {step.name: reason for step, reason in found.branches.items()}
    result.left |= {step.name: reason for step, reason in found.layers.items()}
    # before version 4 of the format, weights are inputs, too
    fused, left = rewrite(graph, steps, found.patterns, constants, names, with_inputs=model.ir_version < 4)
    result.fused += fused
    result.left |= left
    gone = {name for each in fused for name in each.nodes}
    for step in steps:
        node = step.origin.node if step.origin else None
        if node is not None and node.op_type == 'BatchNormalization' and step.name not in gone:
            result.left.setdefault(step.name, 'no convolution stands before it that nothing else needs')

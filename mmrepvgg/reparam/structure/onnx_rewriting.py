"""Put the new nodes into an ONNX graph, and take away what they stand for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .maps import ConvMap, TransposedMap
from .onnx_constants import Constants
from .onnx_layers import get_attributes
from .onnx_values import list_inputs
from .search import Path, compute_map
from .steps import Step


@dataclass(frozen=True)
class FusedNodes:
    """Nodes that became one.

    Attributes:
        name: Name of the new node.
        nodes: Names of the nodes, in their order.
        becomes: The new node in words.
        value: Name of the value that it gives, as before; empty if that is new.
        dtype: Type of its numbers.
    """

    name: str
    nodes: tuple[str, ...]
    becomes: str
    value: str
    dtype: np.dtype


@dataclass(eq=False)
class _Change:
    """One new node.

    Attributes:
        end: The step whose value it gives.
        source: Name of the value that it takes.
        conv: The step of the largest convolution that it stands for. It gets its name.
        gone: The steps that it stands for.
        map: What it computes.
        numbers: Its weight and its bias, if it has one, rounded.
    """

    end: Step
    source: str
    conv: Step
    gone: list[Step]
    map: ConvMap | TransposedMap
    numbers: list[np.ndarray]


def rewrite(
    graph: onnx.GraphProto,
    steps: Sequence[Step],
    patterns: Mapping[Step, Path],
    constants: Constants,
    names: set[str],
    with_inputs: bool,
) -> tuple[list[FusedNodes], dict[str, str]]:
    """Put one node into the place of each pattern of a graph, in place.

    Args:
        graph: The graph.
        steps: Its steps.
        patterns: The patterns in them.
        constants: Its constants.
        names: All names of the model. The new ones are added.
        with_inputs: Whether weights are inputs of the graph, too.

    Returns:
        What became one node; and why other patterns are left, by the names of their nodes.
    """
    changes, left = [], {}
    for end, path in sorted(patterns.items(), key=lambda pattern: steps.index(pattern[0])):
        change = _plan(end, path, steps, constants)
        if isinstance(change, str):
            left[end.name] = change
        else:
            changes.append(change)
    gone = {id(step.origin.node) for change in changes for step in change.gone}
    kept = _list_taken(node for node in graph.node if id(node) not in gone)
    kept.update(each.name for each in graph.output)
    fused = [_apply(graph, change, kept, names, with_inputs) for change in changes]
    new = {id(change.end.origin.node) for change in changes if change.end.origin.name}
    _delete(graph.node, lambda node: id(node) in gone and id(node) not in new)
    return fused, left


def clear(graph: onnx.GraphProto) -> None:
    """Take away what nothing needs: constants, also computed ones, and what is said about values."""
    needed = {each.name for each in graph.output}
    for place, node in reversed(list(enumerate(graph.node))):
        if any(name in needed for name in node.output):
            needed.update(list_inputs(node))
        else:
            del graph.node[place]
    stored = {each.name for each in graph.initializer}
    given = {name for node in graph.node for name in node.output}
    _delete(graph.initializer, lambda tensor: tensor.name not in needed)
    _delete(graph.input, lambda value: value.name in stored and value.name not in needed)
    _delete(graph.value_info, lambda value: value.name not in given and value.name not in needed)
    _delete(graph.quantization_annotation, lambda each: each.tensor_name not in given | needed)


def _plan(end: Step, path: Path, steps: Sequence[Step], constants: Constants) -> _Change | str:
    """The new node of a pattern, or why there is none."""
    with np.errstate(all='ignore'):
        one: Any = compute_map(path, end, steps)
        convs = [step for step in steps if step in path.members and step.is_conv]
        weights: list[Any] = [constants.get(step.origin.node.input[1]) for step in convs]
        largest = max(range(len(convs)), key=lambda place: weights[place].size)
        dtype = weights[largest].dtype
        exact = [each.numpy() for each in (one.weight, one.bias) if each is not None]
        numbers = [each.astype(dtype) for each in exact]
    if not all(np.isfinite(each).all() for each in exact):
        return 'its numbers are not finite'
    if not all(np.isfinite(each.astype(np.float64)).all() for each in numbers):
        number = max(np.abs(each).max() for each in exact)
        return f'a number of the one convolution would be too large for {dtype}: {number:.3g}'
    gone = [step for step in steps if step in path.members and step.origin.name]
    return _Change(end, path.source.origin.name, convs[largest], gone, one, numbers)


def _list_taken(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in list_inputs(node)}


def _apply(graph: onnx.GraphProto, change: _Change, kept: set[str], names: set[str], with_inputs: bool) -> FusedNodes:
    """Write the new node over the last of those that it stands for."""
    end = change.end
    given = change.conv.origin.node.input
    stored = {each.name for each in graph.initializer}
    wanted = (given[1], given[2] if len(given) > 2 else f'{given[1].removesuffix(".weight")}.bias')
    tensors = []
    for number, name in zip(change.numbers, wanted, strict=False):
        # the name of what nobody else needs is free
        name = name if name in stored and name not in kept else _make_name(name, names)
        kept.add(name)
        tensors.append(numpy_helper.from_array(number, name))
        _put(graph, tensors[-1], with_inputs)
    value = end.origin.name or _make_name(f'{end.origin.node.output[0]}.fused', names)
    new = _make_node(change, [change.source, *(each.name for each in tensors)], value)
    if end.origin.name:
        end.origin.node.CopyFrom(new)
    else:  # the first inputs of a sum
        rest = end.origin.node.input[end.origin.num_inputs :]
        place = next(place for place, node in enumerate(graph.node) if node is end.origin.node)
        del end.origin.node.input[:]
        end.origin.node.input.extend([value, *rest])
        graph.node.insert(place, new)
    nodes = tuple(step.name for step in change.gone)
    return FusedNodes(change.conv.name, nodes, _describe(change.map), end.origin.name, change.numbers[0].dtype)


def _make_node(change: _Change, inputs: list[str], value: str) -> onnx.NodeProto:
    one, conv = change.map, change.conv.origin.node
    if isinstance(one, TransposedMap):
        kind, attributes = 'ConvTranspose', get_attributes(conv)
    elif not one.num_axes:
        kind, attributes = 'Gemm', dict(transB=1)
    else:
        left, right = ([pads[side] for pads in one.padding] for side in (0, 1))
        kind = 'Conv'
        attributes = dict(
            kernel_shape=one.size, strides=one.stride, dilations=one.step, group=one.groups, pads=[*left, *right]
        )
    node = helper.make_node(kind, inputs, [value], conv.name, conv.doc_string or None, **attributes)
    node.metadata_props.extend(conv.metadata_props)
    return node


def _describe(one: ConvMap | TransposedMap) -> str:
    if not one.num_axes:
        return 'Gemm'
    kind = 'ConvTranspose' if isinstance(one, TransposedMap) else 'Conv'
    return f'{kind} {"x".join(map(str, one.weight.shape[2:]))}'


def _put(graph: onnx.GraphProto, tensor: onnx.TensorProto, with_inputs: bool) -> None:
    """Store a tensor, in the place of that of its name if there is one."""
    old = next((each for each in graph.initializer if each.name == tensor.name), None)
    if old is not None:
        old.CopyFrom(tensor)
    else:
        graph.initializer.append(tensor)
    taken = next((each for each in graph.input if each.name == tensor.name), None)
    info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
    if taken is not None:
        taken.CopyFrom(info)
    elif with_inputs:
        graph.input.append(info)


def _make_name(wanted: str, names: set[str]) -> str:
    """A name that nothing has yet."""
    name = next(name for number in count() if (name := f'{wanted}_{number}' if number else wanted) not in names)
    names.add(name)
    return name


def _delete(values: Any, is_gone: Callable[[Any], bool]) -> None:
    for place, value in reversed(list(enumerate(values))):
        if is_gone(value):
            del values[place]

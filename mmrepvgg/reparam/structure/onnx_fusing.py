"""Fuse an ONNX graph that somebody exported with its branches and norms."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .maps import ConvMap
from .onnx_reading import read_onnx_steps
from .search import Findings, Path, search
from .steps import Step


def fuse_graph(graph: onnx.GraphProto) -> Findings:
    """Put one convolution into the place of each pattern of ``graph``, in place."""
    steps = read_onnx_steps(graph)
    found = search(steps)
    new = {id(step.origin): _make_conv(graph, step, path) for step, path in found.patterns.items()}
    gone = {id(member.origin) for path in found.patterns.values() for member in path.members}
    nodes = [new.get(id(node), node) for node in graph.node if id(node) not in gone or id(node) in new]
    used = {name for node in nodes for name in _list_names(node)} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in used]
    infos = [each for each in graph.value_info if each.name in {name for node in nodes for name in node.output}]
    for field, values in ((graph.node, nodes), (graph.initializer, kept), (graph.value_info, infos)):
        copies = [type(value)() for value in values]
        for copied, value in zip(copies, values, strict=True):
            copied.CopyFrom(value)
        del field[:]
        field.extend(copies)
    return found


def _list_names(node: onnx.NodeProto) -> list[str]:
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names += [name for inner in graph.node for name in _list_names(inner)]
            names += [each.name for each in graph.output]
    return names


def _make_conv(graph: onnx.GraphProto, step: Step, path: Path) -> onnx.NodeProto:
    one, node = path.map, step.origin
    assert isinstance(one, ConvMap)
    name = f'{step.name}_fused'
    dtype = _get_dtype(graph, path)
    for suffix, value in (('weight', one.weight), ('bias', one.bias)):
        graph.initializer.append(numpy_helper.from_array(value.numpy().astype(dtype), f'{name}.{suffix}'))
    left, right = ([pads[side] for pads in one.padding] for side in (0, 1))
    source = path.source.name if path.source.origin is None else path.source.origin.output[0]
    return helper.make_node(
        'Conv',
        [source, f'{name}.weight', f'{name}.bias'],
        [node.output[0]],
        name,
        kernel_shape=one.size,
        strides=one.stride,
        dilations=one.step,
        group=one.groups,
        pads=[*left, *right],
    )


def _get_dtype(graph: onnx.GraphProto, path: Path) -> np.dtype:
    conv = next(member.origin for member in path.members if member.is_conv)
    return next(numpy_helper.to_array(each).dtype for each in graph.initializer if each.name == conv.input[1])

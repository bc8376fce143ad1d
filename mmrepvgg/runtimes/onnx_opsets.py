"""Older ONNX operators, for compilers that do not know those of PyTorch's exporter."""

from typing import Any

import numpy as np

from .network import ExportError


def lower_opset(model: Any, opset: int) -> Any:
    """Rewrite an ONNX model of opset 18 or later with the operators of an older opset.

    Args:
        model: An ``onnx.ModelProto``. It is changed.
        opset: Version of the operators, 11 or later.

    Raises:
        ExportError: If that version has no equivalent of an operator.
    """
    import onnx

    _pool_globally(model.graph)
    try:
        # the converter can't go below 14, though the operators only got further types since then
        model = onnx.version_converter.convert_version(model, max(opset, 14))
        if opset < 14:
            for node in model.graph.node:
                if node.op_type == 'Reshape':  # the attribute is new in 14, and 0 as by default
                    _remove_attribute(node, 'allowzero')
            model.opset_import[0].version = opset
        model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the errors of onnx have no common class
        reason = ' '.join(str(error).split())[:200]
        raise ExportError(f'the network can not be written with opset {opset}: {reason}') from error
    return model


def _pool_globally(graph: Any) -> None:
    """Replace means over height and width by poolings. Before opset 18 ReduceMean has its axes in an attribute, but
    GlobalAveragePool is the same in all versions.
    """
    from onnx import helper, numpy_helper

    axes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == 7}
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type != 'ReduceMean' or len(node.input) < 2:
            continue
        if not np.array_equal(np.sort(axes.get(node.input[1], np.array([])) % 4), [2, 3]):
            continue
        keeps_axes = next((attribute.i for attribute in node.attribute if attribute.name == 'keepdims'), 1)
        node.op_type = 'GlobalAveragePool'
        del node.input[1:]
        del node.attribute[:]
        if not keeps_axes:
            output = node.output[0]
            node.output[0] = f'{output}_pooled'
            graph.node.insert(index + 1, helper.make_node('Flatten', [node.output[0]], [output], axis=1))


def _remove_attribute(node: Any, name: str) -> None:
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            del node.attribute[index]
            return

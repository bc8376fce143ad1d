"""Small ONNX models, written by hand."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mmrepvgg.reparam.structure.onnx_fusing import ModelFusion, fuse_model
from mmrepvgg.reparam.structure.onnx_values import ValueTypes

PAD = dict(pads=[1, 1, 1, 1])


class Builder:
    """Builds a model node by node. Each method gives the name of the value."""

    def __init__(self, dtype: Any = np.float64, seed: int = 0):
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)
        self._number = 0

    def name(self, kind: str) -> str:
        self._number += 1
        return f'{kind}{self._number}'

    def tensor(self, value: Any) -> str:
        name = self.name('t')
        value = np.asarray(value)
        value = value.astype(self.dtype) if value.dtype.kind == 'f' else value
        self.tensors.append(numpy_helper.from_array(value, name))
        return name

    def random(self, *shape: int) -> str:
        return self.tensor(self._random.standard_normal(shape))

    def node(self, kind: str, *inputs: str, name: str | None = None, outputs: Any = None, **attributes: Any) -> str:
        value = self.name(kind)
        name = value if name is None else name
        self.nodes.append(helper.make_node(kind, inputs, outputs or [value], name, **attributes))
        return self.nodes[-1].output[0]

    def conv(self, x: str, inputs: int, outputs: int, *size: int, bias: bool = False, **attributes: Any) -> str:
        weight = self.random(outputs, inputs // attributes.get('group', 1), *size)
        return self.node('Conv', x, weight, *([self.random(outputs)] if bias else []), **attributes)

    def norm(self, x: str, channels: int, **attributes: Any) -> str:
        numbers = [self.random(channels) for _ in range(3)]
        var = self.tensor(self._random.uniform(0.5, 2, channels))
        return self.node('BatchNormalization', x, *numbers, var, **attributes)

    def model(
        self,
        output: str | list[str],
        shape: Any = ('N', 4, 'H', 'W'),
        *,
        rank: int | None = None,
        opset: int = 18,
        ir_version: int = 8,
        inputs: Any = (),
        infos: Any = (),
        functions: Any = (),
        opsets: Any = (),
    ) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        outputs = [output] if isinstance(output, str) else output
        graph = helper.make_graph(
            self.nodes,
            'graph',
            [helper.make_tensor_value_info('x', kind, shape), *inputs],
            [helper.make_tensor_value_info(each, kind, [None] * (rank or len(shape))) for each in outputs],
            self.tensors,
            value_info=infos,
        )
        imports = [helper.make_opsetid('', opset), *opsets]
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=functions)
        onnx.checker.check_model(model)
        return model


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs: in float32 by ONNX Runtime; in float64, which it does not have, by ONNX's own implementation."""
    if inputs['x'].dtype == np.float32:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)
    return ReferenceEvaluator(model).run(None, inputs)


def count(model: onnx.ModelProto, *kinds: str) -> int:
    return sum(node.op_type in kinds for node in model.graph.node)


def fuse(
    model: onnx.ModelProto, *, inputs: Any = None, shape: tuple[int, ...] = (2, 4, 7, 8)
) -> tuple[onnx.ModelProto, ModelFusion]:
    """A fused copy of a model, with what was done, after both have been compared in the type of the file."""
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    fusion = fuse_model(fused, ValueTypes(fused))
    onnx.checker.check_model(fused, full_check=True)
    random = np.random.default_rng(1)
    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    given = inputs or dict(x=random.standard_normal(shape).astype(dtype))
    for expected, actual in zip(run(model, **given), run(fused, **given), strict=True):
        assert expected.shape == actual.shape
        assert expected.dtype == actual.dtype
        largest = max(1, np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=0, atol=(1e-5 if dtype == np.float32 else 1e-10) * largest)
    return fused, fusion


def list_kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def branches(b: Builder, x: str = 'x', channels: int = 4) -> str:
    """A block of RepVGG."""
    return b.node(
        'Add',
        b.node('Add', b.norm(b.conv(x, channels, channels, 3, 3, **PAD), channels), b.norm(x, channels)),
        b.norm(b.conv(x, channels, channels, 1, 1), channels),
    )

"""ONNX Runtime's quantizer, which makes int8 ONNX files. Imports no torch."""

import copy
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .onnx_files import save_proto
from .quantizer import Int8Model, Quantizer, Ranges, find_layer
from .quiet import quiet
from .ranges import assign_ranges

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata

# Operators with weights (MatMul is a linear layer on tokens), and operators that become int8 together with the layer
# behind them.
_LAYERS = ('Conv', 'Gemm', 'MatMul')
_POOLING = ('ReduceMean', 'GlobalAveragePool')


@dataclass(frozen=True)
class OnnxInt8Model(Int8Model):
    """A float32 ONNX model with the ranges of its activations.

    A layer in int8 has an int8 weight, symmetric around 0, and a uint8 input. Its output is float32. So a layer that
    stays in float32 changes nothing for the others.

    Attributes:
        nodes: Names of the nodes that are quantized with a layer, by the name of the layer.
        model: The float32 ``onnx.ModelProto``.
        ranges: ONNX Runtime's ``TensorsData``.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
        save: Function that writes an ``onnx.ModelProto``.
    """

    nodes: Mapping[str, list[str]]
    model: Any
    ranges: Any
    granularity: str
    save: 'Callable[[Any, Path, ExportMetadata], None]'

    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        chosen = [layer for layer, can_be_int8 in self.layers.items() if can_be_int8 and layer not in float_layers]
        nodes = [node for layer in chosen for node in self.nodes[layer]]
        model = copy.deepcopy(self.model)
        if nodes:  # for the quantizer an empty list means all nodes
            with quiet():
                quantizer = QDQQuantizer(
                    model,
                    self.granularity == 'per-channel',
                    False,  # weights use all 8 bits: OnnxFormat.load chooses kernels that do not saturate
                    QuantType.QInt8,
                    QuantType.QUInt8,
                    self.ranges,
                    nodes,
                    [],
                    [*_LAYERS, *_POOLING],
                    {'OpTypesToExcludeOutputQuantization': [*_LAYERS, *_POOLING]},
                )
                quantizer.quantize_model()
            model = quantizer.model.model
        self.save(model, path, metadata)


class OnnxRuntimeQuantizer(Quantizer):
    """ONNX Runtime's static quantization."""

    name = 'onnxruntime'
    calibrations = ('minmax', 'entropy', 'percentile')
    takes_ranges = True
    keeps_rounded = True

    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        import onnx
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        methods = {
            'minmax': CalibrationMethod.MinMax,
            'entropy': CalibrationMethod.Entropy,
            'percentile': CalibrationMethod.Percentile,
        }
        with tempfile.TemporaryDirectory() as folder:
            augmented = str(Path(folder) / 'augmented.onnx')
            with quiet():
                calibrator: Any = create_calibrator(path, [*_LAYERS, *_POOLING], augmented, methods[calibration])
            for batch in batches:
                # one batch a call: the calibrator holds all activations of a call in memory
                reader = SimpleNamespace(get_next=iter([{'images': batch}, None]).__next__)
                with quiet():
                    calibrator.collect_data(reader)
            with quiet():
                ranges = calibrator.compute_data()
        model = onnx.load(path)
        nodes = _find_nodes(model.graph)
        return OnnxInt8Model(dict.fromkeys(nodes, True), nodes, model, ranges, granularity, self.save)

    def use_ranges(self, path: Path, ranges: Ranges, *, granularity: str) -> Int8Model:
        import onnx

        model = onnx.load(path)
        nodes = {
            layer: names[:1] for layer, names in _find_nodes(model.graph).items()
        }  # the pooling before it stays float32
        layers = {layer: layer in ranges for layer in nodes}
        return OnnxInt8Model(layers, nodes, model, _assign_ranges(ranges, nodes, model), granularity, self.save)

    @staticmethod
    def save(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
        """Write an ``onnx.ModelProto`` with its metadata and batch size. The model is changed."""
        if metadata.batch_size is not None:
            del model.graph.value_info[:]
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = metadata.batch_size
        save_proto(model, path, metadata)


def _assign_ranges(ranges: Ranges, nodes: Mapping[str, list[str]], model: Any) -> Any:
    """Check the ranges of the inputs of convolutions, and assign them to tensors."""
    import numpy as np
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    inputs = {node.name: node.input[0] for node in model.graph.node if node.op_type == 'Conv'}
    inputs = {layer: inputs[node] for layer, (node,) in nodes.items() if node in inputs}
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            tensor: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for tensor, (low, high) in assign_ranges(ranges, inputs).items()
        },
    )


def _find_nodes(graph: Any) -> dict[str, list[str]]:
    """The node of each layer, and the poolings that are quantized with it, by the name of the layer."""
    weights = {tensor.name for tensor in graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for tensor in node.input:
            consumers.setdefault(tensor, []).append(node)
    owners = {
        node.name: find_layer(node.input[1])
        for node in graph.node
        if node.op_type in _LAYERS and node.input[1] in weights
    }
    nodes: dict[str, list[str]] = {}
    for node, layer in owners.items():
        nodes.setdefault(layer, []).append(node)
    for node in graph.node:
        if node.op_type in _POOLING:
            # only a reshape may stand between a pooling and its layer
            following = node
            while following.name not in owners and len(consumers.get(following.output[0], [])) == 1:
                following = consumers[following.output[0]][0]
            if following.name in owners:
                nodes[owners[following.name]].append(node.name)
    return nodes


def find_outputs(graph: Any) -> dict[str, str]:
    """The tensor that a layer gives, by the name of the layer. Weights may be int8."""
    # QDQ: a weight in int8 is rescaled by a node between it and its layer
    rescaled = {node.output[0]: node.input[0] for node in graph.node if node.op_type == 'DequantizeLinear'}
    constants = {tensor.name for tensor in graph.initializer}
    biases = {
        tensor: node.output[0]
        for node in graph.node
        if node.op_type == 'Add' and constants & set(node.input)
        for tensor in node.input
    }
    outputs = {}
    for node in graph.node:
        if node.op_type in _LAYERS and (weight := rescaled.get(node.input[1], node.input[1])) in constants:
            output = node.output[0]
            outputs[find_layer(weight.removesuffix('_quantized'))] = (
                biases.get(output, output) if node.op_type == 'MatMul' else output
            )
    return outputs

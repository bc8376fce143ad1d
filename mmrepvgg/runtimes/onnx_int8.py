"""int8 ONNX files by ONNX Runtime's own quantizer. Imports no torch."""

import copy
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .format import ENTRY, Int8Model, Quantizer, Ranges
from .quiet import quiet

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata

# What is computed in int8 because it holds weights, and what comes along with the layer that follows it.
_LAYERS = ('Conv', 'Gemm')
_POOLING = ('ReduceMean', 'GlobalAveragePool')


@dataclass(frozen=True)
class OnnxInt8Model(Int8Model):
    """A layer in int8 has an int8 weight, symmetric around 0, and a uint8 input. Its output is float32, until the next
    layer takes that in. So each layer can be left in float32 without a trace.

    Attributes:
        layers: For each layer whether it can be int8.
        nodes: For each layer the nodes that are quantized with it.
        model: The float32 ``onnx.ModelProto``.
        ranges: ONNX Runtime's ``TensorsData``.
        granularity: Of the weights.
        save: Writes an ``onnx.ModelProto``.
    """

    layers: Mapping[str, bool]
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
        if nodes:  # it takes none for all
            with quiet():
                quantizer = QDQQuantizer(
                    model,
                    self.granularity == 'per-channel',
                    False,  # full range: the runtime is told to be exact where that would saturate
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
                # batch by batch, or all activations of all images would be held at once
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
        nodes = {layer: names[:1] for layer, names in _find_nodes(model.graph).items()}  # without the pooling before it
        layers = {layer: layer in ranges for layer in nodes}
        return OnnxInt8Model(layers, nodes, model, _assign_ranges(ranges, nodes, model), granularity, self.save)

    @staticmethod
    def save(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
        """Write an ``onnx.ModelProto`` of any batch size, which it changes, with its metadata."""
        if metadata.batch_size is not None:
            del model.graph.value_info[:]
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = metadata.batch_size
        for entry in model.metadata_props:
            if entry.key == ENTRY:
                entry.value = metadata.to_json()
        path.write_bytes(model.SerializeToString())


def _assign_ranges(ranges: Ranges, nodes: Mapping[str, list[str]], model: Any) -> Any:
    """Ranges of convolutions' inputs as those of tensors, checked."""
    import numpy as np
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

    inputs = {node.name: node.input[0] for node in model.graph.node if node.op_type == 'Conv'}
    inputs = {layer: inputs[node] for layer, (node,) in nodes.items() if node in inputs}
    if unknown := sorted(set(ranges) - set(inputs)):
        raise ValueError(
            f'`activation_ranges` must name convolutions of the deploy form, {", ".join(inputs)}, got {unknown[0]!r}'
        )
    tensors: dict[str, tuple[float, float]] = {}
    for layer, (low, high) in ranges.items():
        if not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError(f'the range of {layer} must be finite and ascending, got {(low, high)}')
        common = tensors.setdefault(inputs[layer], (low, high))
        if common != (low, high):
            raise ValueError(
                f'{layer} must have the range of the others that take the same input, {common}, got {(low, high)}'
            )
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            tensor: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for tensor, (low, high) in tensors.items()
        },
    )


def _find_nodes(graph: Any) -> dict[str, list[str]]:
    """For each layer its node, and the poolings that are quantized with it."""
    weights = {tensor.name for tensor in graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for tensor in node.input:
            consumers.setdefault(tensor, []).append(node)
    owners = {
        node.name: name_layer(node.input[1])
        for node in graph.node
        if node.op_type in _LAYERS and node.input[1] in weights
    }
    nodes = {layer: [node] for node, layer in owners.items()}
    for node in graph.node:
        if node.op_type in _POOLING:
            # a pooled tensor has one way to go, through a reshape at most
            following = node
            while following.name not in owners and len(consumers.get(following.output[0], [])) == 1:
                following = consumers[following.output[0]][0]
            if following.name in owners:
                nodes[owners[following.name]].append(node.name)
    return nodes


def name_layer(weight: str) -> str:
    """A layer's name, from the name that an exporter gave its weight; a block's convolution has the block's name."""
    from ..models.forms import DEPLOY_BRANCH

    name = weight.removeprefix('network.').removeprefix('model.').removesuffix('.weight')
    return name.removesuffix(f'.{DEPLOY_BRANCH}')

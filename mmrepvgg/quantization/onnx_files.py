"""int8 ONNX files by ONNX Runtime's own quantizer."""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..models.forms import DEPLOY_BRANCH
from ..runtimes.format import ENTRY
from ..runtimes.metadata import ExportMetadata
from ..runtimes.quiet import quiet

# What is computed in int8 because it holds weights, and what comes along with the layer that follows it.
_LAYERS = ('Conv', 'Gemm')
_POOLING = ('ReduceMean', 'GlobalAveragePool')


class OnnxQuantizer:
    """A float32 ONNX file of this project, from which int8 ones are made.

    A layer in int8 has an int8 weight, symmetric around 0, and a uint8 input; what it gives is float32 until the next
    one takes it in. So each layer can be left in float32 without a trace.

    Args:
        path: The file, as the format writes it.
        per_channel: Whether each output channel of a weight has its own scale.

    Attributes:
        layers (dict[str, list[str]]): For each layer, by its name in the model, the nodes that are quantized with it.
    """

    def __init__(self, path: Path, per_channel: bool):
        import onnx

        self.path = path
        self.model = onnx.load(path)
        self.per_channel = per_channel
        self.layers = _find_layers(self.model.graph)
        self.ranges: Any = None

    def calibrate(self, batches: Iterable[np.ndarray], method: str) -> None:
        """Find the ranges of the layers' inputs.

        Args:
            batches: Inputs of the file, ``(N, C, H, W)``.
            method: One of ``CALIBRATIONS['onnxruntime']``.
        """
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        methods = {
            'minmax': CalibrationMethod.MinMax,
            'entropy': CalibrationMethod.Entropy,
            'percentile': CalibrationMethod.Percentile,
        }
        with tempfile.TemporaryDirectory() as folder:
            with quiet():
                calibrator: Any = create_calibrator(
                    self.path, [*_LAYERS, *_POOLING], str(Path(folder) / 'augmented.onnx'), methods[method]
                )
            for batch in batches:
                # batch by batch, or all activations of all images would be held at once
                with quiet():
                    calibrator.collect_data(_Reader([batch]))
            with quiet():
                self.ranges = calibrator.compute_data()

    def set_ranges(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Take the ranges of the inputs of the convolutions named, and quantize these alone."""
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

        inputs = {node.name: node.input[0] for node in self.model.graph.node}
        convs = {node.name for node in self.model.graph.node if node.op_type == 'Conv'}
        named = {name: [node for node in nodes if node in convs] for name, nodes in self.layers.items()}
        named = {name: nodes for name, nodes in named.items() if nodes}
        if unknown := sorted(set(ranges) - set(named)):
            raise ValueError(
                f'activation_ranges must name convolutions of the deploy form, {", ".join(named)}, got {unknown[0]!r}'
            )
        tensors: dict[str, tuple[float, float]] = {}
        for name, (low, high) in ranges.items():
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f'the range of {name} must be finite and ascending, got {(low, high)}')
            tensor = inputs[named[name][0]]
            if tensors.setdefault(tensor, (low, high)) != (low, high):
                raise ValueError(
                    f'{name} must have the range of the others that take the same input, {tensors[tensor]}, '
                    f'got {(low, high)}'
                )
        self.layers = {name: named[name] for name in ranges}
        self.ranges = TensorsData(
            CalibrationMethod.MinMax,
            {
                tensor: TensorData(lowest=np.float32(low), highest=np.float32(high))
                for tensor, (low, high) in tensors.items()
            },
        )

    def write(self, path: Path, metadata: ExportMetadata, float_layers: Iterable[str] = ()) -> None:
        """Write the model as ``path`` with all layers but ``float_layers`` in int8."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        kept = set(float_layers)
        nodes = [node for name, nodes in self.layers.items() if name not in kept for node in nodes]
        model = copy.deepcopy(self.model)
        if nodes:  # it takes none for all
            with quiet():
                quantizer = QDQQuantizer(
                    model,
                    self.per_channel,
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
        if metadata.batch_size is not None:
            del model.graph.value_info[:]
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = metadata.batch_size
        for entry in model.metadata_props:
            if entry.key == ENTRY:
                entry.value = metadata.to_json()
        path.write_bytes(model.SerializeToString())


class _Reader:
    """Batches as ONNX Runtime's calibrators ask for them."""

    def __init__(self, batches: Iterable[np.ndarray]):
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {'images': batch}


def _find_layers(graph: Any) -> dict[str, list[str]]:
    weights = {tensor.name for tensor in graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for tensor in node.input:
            consumers.setdefault(tensor, []).append(node)
    layers: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in _LAYERS and node.input[1] in weights:
            owners[node.name] = name_layer(node.input[1])
            layers[owners[node.name]] = [node.name]
    for node in graph.node:
        if node.op_type in _POOLING:
            # a pooled tensor has one way to go, through a reshape at most
            following = node
            while following.name not in owners and len(consumers.get(following.output[0], [])) == 1:
                following = consumers[following.output[0]][0]
            if following.name in owners:
                layers[owners[following.name]].append(node.name)
    return layers


def name_layer(weight: str) -> str:
    """A layer's name, from the name that an exporter gave its weight; a block's convolution has the block's name."""
    name = weight.removeprefix('network.').removeprefix('model.').removesuffix('.weight')
    return name.removesuffix(f'.{DEPLOY_BRANCH}')

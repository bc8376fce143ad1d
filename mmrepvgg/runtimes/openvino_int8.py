"""The quantizers for int8 OpenVINO files: NNCF and ONNX Runtime's. Imports no torch."""

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .onnx import ONNX
from .onnx_int8 import OnnxRuntimeQuantizer
from .openvino_core import compiling_by_one_core, get_core, import_openvino, save_model
from .quantizer import Int8Model, Quantizer, find_layer
from .quiet import quiet

if TYPE_CHECKING:
    import numpy as np

    from .metadata import ExportMetadata

_LAYERS = ('Convolution', 'GroupConvolution', 'MatMul')
_INT8 = ('i8', 'u8')
_ROUNDING = 'FakeQuantize'
# Operations that may stand between a rounded tensor and the layer that takes it.
_POOLING = ('ReduceMean', 'Reshape')


@dataclass(frozen=True)
class NncfModel(Int8Model):
    """The model that NNCF made from a float32 file.

    Attributes:
        model: The int8 ``openvino.Model``.
        original: The float32 ``openvino.Model``.
    """

    model: Any
    original: Any

    def write(self, path: Path, metadata: 'ExportMetadata', float_layers: Collection[str] = ()) -> None:
        model = self.model.clone()
        _restore(model, self.original, float_layers)
        save_model(model, path, metadata)


class NncfQuantizer(Quantizer):
    """NNCF's post-training quantization."""

    name = 'nncf'
    calibrations = ('minmax', 'percentile')
    packages = ('nncf',)
    extra = 'quantization'

    def calibrate(
        self, path: Path, batches: 'Iterable[np.ndarray]', *, granularity: str, calibration: str
    ) -> Int8Model:
        nncf = _import_nncf()
        from nncf.quantization.advanced_parameters import QuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        estimators = {
            'minmax': RangeEstimatorParametersSet.MINMAX,
            'percentile': RangeEstimatorParametersSet.MEAN_QUANTILE,
        }
        parameters = nncf.AdvancedQuantizationParameters(
            # On CPUs without VNNI instructions OpenVINO's kernels saturate where neighbouring inputs and weights are
            # large. The first layer has such inputs, so it gets 7-bit weights. In the other layers 7-bit weights cost
            # more accuracy than saturation.
            overflow_fix=nncf.OverflowFix.FIRST_LAYER,
            weights_quantization_params=QuantizationParameters(per_channel=granularity == 'per-channel'),
            activations_range_estimator_params=estimators[calibration],
        )
        images = [image[None] for batch in batches for image in batch]
        original = get_core().read_model(path)
        with quiet(), compiling_by_one_core():
            model = nncf.quantize(
                original,
                nncf.Dataset(images),
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(images),
                advanced_parameters=parameters,
            )
        return NncfModel({name: _has_int8_weight(op) for name, op in iterate_layers(model)}, model, original)


class OnnxRuntimeForOpenvino(OnnxRuntimeQuantizer):
    """ONNX Runtime's quantizer. OpenVINO converts the int8 model that it makes."""

    source = ONNX

    @staticmethod
    def save(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
        with tempfile.TemporaryDirectory() as folder, quiet():
            onnx_path = Path(folder, 'int8.onnx')
            del model.metadata_props[:]  # the file gets its own
            onnx_path.write_bytes(model.SerializeToString())
            save_model(import_openvino().convert_model(onnx_path), path, metadata)


def _restore(model: Any, original: Any, float_layers: Collection[str]) -> None:
    """Give ``float_layers`` of an int8 model the weights, biases and inputs that they have in ``original``."""
    originals = {op.get_friendly_name(): op for op in original.get_ops()}
    for name, layer in iterate_layers(model):
        if name not in float_layers:
            continue
        additions = [target.get_node() for target in layer.output(0).get_target_inputs()]
        # the bias too, because NNCF changes it for the rounded weight
        for op in (layer, *(op for op in additions if op.get_type_name() == 'Add')):
            op.input(1).replace_source_output(originals[op.get_friendly_name()].input_value(1))
        _take_unrounded(layer.input(0))


def _take_unrounded(target: Any) -> None:
    """Connect an input of an operation, and the input of a pooling before it, with the unrounded tensor."""
    source = target.get_source_output()
    node = source.get_node()
    if node.get_type_name() == _ROUNDING:
        target.replace_source_output(node.input_value(0))
        _take_unrounded(target)
    elif node.get_type_name() in _POOLING and len(_list_takers(source)) == 1:
        _take_unrounded(node.input(0))


def _list_takers(output: Any) -> list[Any]:
    """The operations that take a tensor, without roundings that have no use any more."""
    nodes = [target.get_node() for target in output.get_target_inputs()]
    return [node for node in nodes if node.get_type_name() != _ROUNDING or _list_takers(node.output(0))]


def iterate_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers of an ``openvino.Model`` that was made from PyTorch, with their names in the classifier."""
    for op in model.get_ordered_ops():
        if op.get_type_name() in _LAYERS:
            # '__module.model.head.fc/aten::linear/MatMul'
            yield find_layer(op.get_friendly_name().removeprefix('__module.').split('/')[0]), op


def find_output(op: Any) -> Any:
    """What a layer of an ``openvino.Model`` gives, with its bias, which is an operation of its own."""
    output = op.output(0)
    for target in output.get_target_inputs():
        addition = target.get_node()
        if addition.get_type_name() == 'Add' and _is_constant(addition.input_value(1 - target.get_index())):
            return addition.output(0)
    return output


def _is_constant(output: Any) -> bool:
    node = output.get_node()
    return node.get_type_name() == 'Constant' or (
        node.get_type_name() == 'Convert' and _is_constant(node.input_value(0))
    )


def _has_int8_weight(op: Any) -> bool:
    node = op.input_value(1).get_node()
    while node.get_type_name() != 'Constant':
        if not node.inputs():
            return False
        node = node.input_value(0).get_node()
    return node.get_element_type().get_type_name() in _INT8


def _import_nncf() -> Any:
    # without quiet(), because NNCF's logger would keep the redirected stdout
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import_openvino()  # without telemetry
        import nncf
    finally:
        logging.disable(previous)
    return nncf

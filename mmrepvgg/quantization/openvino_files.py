"""int8 OpenVINO files by NNCF."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtimes.metadata import ExportMetadata
from ..runtimes.openvino import OPENVINO
from ..runtimes.openvino_core import compiling_by_one_core, get_core, import_openvino
from ..runtimes.quiet import quiet
from .onnx_files import name_layer
from .settings import QuantizationSettings

_LAYERS = ('Convolution', 'GroupConvolution', 'MatMul')
_INT8 = ('i8', 'u8')
# Layers are ranked on so many batches of test images.
_NUM_RANKING = 8


def quantize_openvino(path: Path, images: Sequence[np.ndarray], settings: QuantizationSettings) -> Any:
    """Quantize a float32 file of this project.

    Args:
        path: The .xml.
        images: Inputs of the file to calibrate on, ``(1, C, H, W)`` each.
        settings: How.

    Returns:
        The quantized ``openvino.Model``.
    """
    nncf = _import_nncf()
    with quiet(), compiling_by_one_core():
        return nncf.quantize(
            get_core().read_model(path),
            nncf.Dataset(images),
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            advanced_parameters=_make_advanced(nncf, settings),
        )


def quantize_within_drop(
    path: Path,
    images: Sequence[np.ndarray],
    settings: QuantizationSettings,
    test: Iterable[tuple[np.ndarray, Any]],
    measure_accuracy: Callable[[Callable[[np.ndarray], np.ndarray], Iterable[Any]], float],
) -> Any:
    """:func:`quantize_openvino` with those layers in float32 that NNCF finds necessary for ``settings.max_drop``.

    It may end without having met that.

    Args:
        path: See there, as for the next two.
        images: See there.
        settings: See there.
        test: Batches of inputs ``(N, C, H, W)`` and labels, which can be gone through many times.
        measure_accuracy: Gives the top-1 accuracy in percent of a function from inputs to scores on such batches.
    """
    nncf = _import_nncf()
    assert settings.max_drop is not None

    def validate(compiled: Any, batches: Iterable[Any]) -> float:
        return measure_accuracy(lambda inputs: compiled(inputs)[0], batches)

    with quiet(), compiling_by_one_core():
        return nncf.quantize_with_accuracy_control(
            get_core().read_model(path),
            nncf.Dataset(images),
            nncf.Dataset(test, lambda batch: batch[0]),
            validate,
            max_drop=settings.max_drop,
            drop_type=nncf.DropType.ABSOLUTE,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            advanced_quantization_parameters=_make_advanced(nncf, settings),
            # in batches; in this process, because its helpers could not take the images over
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=_NUM_RANKING, num_ranking_workers=1
            ),
        )


def convert_onnx(path: Path) -> Any:
    """Read an ONNX file with quantized layers as an ``openvino.Model``."""
    with quiet():
        return import_openvino().convert_model(path)


def save_quantized(model: Any, path: Path, metadata: ExportMetadata) -> None:
    """Write the .xml, and the .bin beside it."""
    if metadata.batch_size is not None:
        model.reshape([metadata.batch_size, *list(model.inputs[0].partial_shape)[1:]])
    OPENVINO.save(model, path, metadata)


def list_layers(model: Any) -> dict[str, bool]:
    """For each layer of an ``openvino.Model`` made from PyTorch, by its name in the classifier: whether it is int8."""
    layers = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() in _LAYERS:
            # '__module.model.head.fc/aten::linear/MatMul'
            name = name_layer(op.get_friendly_name().removeprefix('__module.').split('/')[0])
            layers[name] = _has_int8_weight(op)
    return layers


def _has_int8_weight(op: Any) -> bool:
    node = op.input_value(1).get_node()
    while node.get_type_name() != 'Constant':
        if not node.inputs():
            return False
        node = node.input_value(0).get_node()
    return node.get_element_type().get_type_name() in _INT8


def _import_nncf() -> Any:
    # not with stdout redirected, which its logger would keep
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import_openvino()  # without telemetry
        import nncf
    finally:
        logging.disable(previous)
    return nncf


def _make_advanced(nncf: Any, settings: QuantizationSettings) -> Any:
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    estimators = {
        'minmax': RangeEstimatorParametersSet.MINMAX,
        'percentile': RangeEstimatorParametersSet.MEAN_QUANTILE,
    }
    return nncf.AdvancedQuantizationParameters(
        # On CPUs without VNNI instructions OpenVINO's kernels saturate where neighbouring inputs and weights are large.
        # That is so in the first layer, which gets 7-bit weights; in all layers these cost more than saturation does.
        overflow_fix=nncf.OverflowFix.FIRST_LAYER,
        weights_quantization_params=QuantizationParameters(per_channel=settings.granularity == 'per-channel'),
        activations_range_estimator_params=estimators[settings.calibration],
    )

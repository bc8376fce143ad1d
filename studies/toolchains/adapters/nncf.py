"""NNCF: its post-training quantization for OpenVINO, with its defaults."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .frame import FLOAT, PER_TENSOR, Predict, main


def build(path: Path, images: Sequence[np.ndarray], mode: str, scratch: Path) -> Predict:
    sys.modules['openvino_telemetry'] = None  # type: ignore[assignment]  # without it nothing is sent over the network
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if mode != FLOAT:
        model = quantize(model, images, mode)
    # the default may be bfloat16
    compiled = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda image: compiled(image)[0]


def quantize(model: object, images: Sequence[np.ndarray], mode: str) -> object:
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters

    per_tensor = nncf.AdvancedQuantizationParameters(
        weights_quantization_params=QuantizationParameters(per_channel=False)
    )
    dataset = nncf.Dataset(images)
    return nncf.quantize(model, dataset, advanced_parameters=per_tensor if mode == PER_TENSOR else None)


if __name__ == '__main__':
    main(build)

"""ONNX Runtime: its command-line quantizer, with its defaults."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from .frame import FLOAT, PER_CHANNEL, Predict, main

RUNNER = 'onnxruntime.quantization.static_quantize_runner'


def build(model: Path, images: Sequence[np.ndarray], mode: str, scratch: Path) -> Predict:
    path = model if mode == FLOAT else quantize(model, images, mode, scratch)
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def quantize(model: Path, images: Sequence[np.ndarray], mode: str, scratch: Path) -> Path:
    # it takes the images of folders beside the model, in the layout of ONNX's test data
    source, destination = scratch / 'float.onnx', scratch / 'int8.onnx'
    source.write_bytes(model.read_bytes())
    for number, image in enumerate(images):
        folder = scratch / f'test_data_set_{number}'
        folder.mkdir()
        (folder / 'input_0.pb').write_bytes(onnx.numpy_helper.from_array(image).SerializeToString())
    options = ['--per_channel'] if mode == PER_CHANNEL else []
    subprocess.run([sys.executable, '-m', RUNNER, '-i', source, '-o', destination, *options], check=True)
    return destination


if __name__ == '__main__':
    main(build)

"""Rockchip's rknn-toolkit2: its quantizer with its defaults, and its simulator of an NPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rknn.api import RKNN

from .frame import FLOAT, PER_CHANNEL, Predict, main

PLATFORM = 'rk3588'


def build(path: Path, images: Sequence[np.ndarray], mode: str, scratch: Path) -> Predict:
    for number, image in enumerate(images):
        np.save(scratch / f'{number}.npy', image)
    dataset = scratch / 'dataset.txt'
    dataset.write_text(''.join(f'{scratch / str(number)}.npy\n' for number in range(len(images))))

    rknn = RKNN(verbose=False)
    method = 'channel' if mode == PER_CHANNEL else 'layer'
    check(rknn.config(target_platform=PLATFORM, quantized_method=method), 'config')
    check(rknn.load_onnx(str(path)), 'load_onnx')
    check(rknn.build(do_quantization=mode != FLOAT, dataset=str(dataset)), 'build')
    check(rknn.init_runtime(), 'init_runtime')
    return lambda image: rknn.inference(inputs=[image], data_format=['nchw'])[0]


def check(status: int, name: str) -> None:
    """The functions of the toolkit print their errors, and return a status that is not 0."""
    if status:
        raise RuntimeError(f'{name} failed with status {status}')


if __name__ == '__main__':
    main(build)

"""JPEG decoders side by side, one thread: those that a pipeline may use, and OpenCV at a half and a quarter of a size.

The decoders that are not installed are left out.

    python -m studies.jpeg_decoders
"""

import argparse
import io
from collections.abc import Callable, Iterator
from importlib import import_module

import cv2
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.io import ImageReadMode, decode_jpeg

from mmrepvgg.benchmark.data_photos import QUALITY
from mmrepvgg.measures.timing import summarise, time_interleaved
from mmrepvgg.progress import track
from mmrepvgg.tables import format_table

SIZES = ((500, 375), (2048, 1536), (4000, 3000))


def main(sizes: tuple[tuple[int, int], ...] = SIZES, repeats: int = 20) -> str:
    """The milliseconds of each decoder for an image of each size (width and height), as a table."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    columns = []
    for size in track(sizes, 'decoding'):
        runs = dict(_iterate_decoders(_make_jpeg(*size)))
        times = time_interleaved(list(runs.values()), repeats, warm_up=2)
        columns.append([f'{1e3 * summarise(seconds).median:.2f}' for seconds in times])
    rows = zip(runs, *columns, strict=True)
    return format_table(['ms an image', *(f'{width} x {height}' for width, height in sizes)], rows)


def _make_jpeg(width: int, height: int) -> bytes:
    """A photograph in this size. Enlarged ones get the noise of a camera, or they would have too few bytes."""
    photo = Image.fromarray(load_sample_images().images[0]).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3)) if width > 640 else 0
    file = io.BytesIO()
    pixels = np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, 'JPEG', quality=QUALITY)
    return file.getvalue()


def _iterate_decoders(jpeg: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    numbers, tensor = np.frombuffer(jpeg, np.uint8), torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
    yield 'OpenCV', lambda: cv2.imdecode(numbers, cv2.IMREAD_COLOR)
    yield 'Pillow', lambda: Image.open(io.BytesIO(jpeg)).load()
    yield 'torchvision', lambda: decode_jpeg(tensor, ImageReadMode.RGB)
    try:
        simplejpeg = import_module('simplejpeg')
    except ModuleNotFoundError:
        pass
    else:
        yield 'simplejpeg', lambda: simplejpeg.decode_jpeg(jpeg, 'BGR')
    yield 'OpenCV, 1/2', lambda: cv2.imdecode(numbers, cv2.IMREAD_REDUCED_COLOR_2)
    yield 'OpenCV, 1/4', lambda: cv2.imdecode(numbers, cv2.IMREAD_REDUCED_COLOR_4)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(main())

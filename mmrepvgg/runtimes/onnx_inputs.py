"""Inputs for an ONNX model that nobody describes: seeded noise, or images."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from mmcv import imresize
from onnx import helper

from ..checkpoints.reading import CheckpointError
from ..data.images import list_images
from ..data.reading import LoadImageFromFile

# Lengths that are tried for free axes: small ones, those of usual images, and those of sound.
_LENGTHS = (64, 224, 256, 32, 384, 640, 512, 128, 16, 8, 1, 1024, 16384)
_MOST_NUMBERS = 1 << 21
# The usual statistics of images, in RGB.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_MOST_IMAGES = 16

Inputs = dict[str, Any]
RunModel = Callable[[Inputs], dict[str, Any]]


class ModelInputs:
    """Makes inputs for a model.

    Args:
        graph: The graph of the model.
        input_size: Height and width of images, where the model leaves them free. Default: usual ones are tried.
        data: Image or folder of images; None for noise.

    Raises:
        ValueError: If ``data`` is given, and the model has not exactly one input for images.
    """

    def __init__(self, graph: onnx.GraphProto, input_size: Sequence[int] | None = None, data: str | Path | None = None):
        stored = {each.name for each in graph.initializer}
        self._infos = [each for each in graph.input if each.name not in stored]
        self._axes = {each.name: _name_axes(each) for each in self._infos}
        self._batch = {axes[0] for axes in self._axes.values() if axes and isinstance(axes[0], str)}
        self._fixed: dict[str, int] = {}
        images = [name for name, axes in self._axes.items() if len(axes) == 4]
        for name in images if input_size is not None else ():
            sides = zip(_find_sides(self._axes[name]), input_size or (), strict=True)
            self._fixed |= {axis: length for axis, length in sides if isinstance(axis, str)}
        self._files: list[Path] = []
        if data is not None:
            if len(images) != 1:
                raise ValueError(
                    f'`data` goes with a model that has one input (N, C, H, W) for images; this one has {len(images)}; '
                    'leave it out (seeded noise is used then)'
                )
            self._files = [file for file, _ in list_images([data])][:_MOST_IMAGES]

    def iterate(self, run: RunModel) -> Iterator[tuple[Inputs, dict[str, Any]]]:
        """Inputs that the model takes, and what it gives for them: two of different sizes, if it takes such; or images.

        Raises:
            CheckpointError: If it takes none of those that are tried.
        """
        errors: list[Exception] = []
        found = 0
        for lengths in self._iterate_lengths():
            try:
                inputs = self._make(lengths, found)
                outputs = run(inputs)
            except Exception as error:  # ONNX Runtime's errors have no common class
                errors.append(error)
                continue
            yield inputs, outputs
            found += 1
            while self._files and found * self._get_batch_size(lengths) < len(self._files):
                inputs = self._make(lengths, found)
                yield inputs, run(inputs)
                found += 1
            if found > 1 or self._files:
                return
        if not found:
            reason = ' '.join(str(errors[0]).split())[:300] if errors else 'it has inputs of no known size'
            raise CheckpointError(
                f'the model can not be run, so nothing could be compared: {reason}. If it takes images of a certain '
                'size only, give it by `input_size`'
            )

    def _iterate_lengths(self) -> Iterator[dict[str, int]]:
        """Lengths of the free axes, in the order in which they are tried."""
        names = dict.fromkeys(axis for axes in self._axes.values() for axis in axes if isinstance(axis, str))
        free = [name for name in names if name not in self._batch and name not in self._fixed]
        lengths = _LENGTHS if free else (1,)
        different = {name: 64 + 32 * place for place, name in enumerate(reversed(free), 1)}
        for batch, length in itertools.product((2, 1) if self._batch else (1,), lengths):
            yield self._fixed | dict.fromkeys(self._batch, batch) | dict.fromkeys(free, length)
            if length == lengths[0] and free:
                yield self._fixed | dict.fromkeys(self._batch, 1) | different

    def _get_batch_size(self, lengths: dict[str, int]) -> int:
        axis = next(axes[0] for axes in self._axes.values() if len(axes) == 4)
        return lengths[axis] if isinstance(axis, str) else axis

    def _make(self, lengths: dict[str, int], number: int) -> Inputs:
        random = np.random.default_rng(number)
        inputs: Inputs = {}
        for info in self._infos:
            shape = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in self._axes[info.name])
            if math.prod(shape[1:]) > _MOST_NUMBERS and len(lengths) > len(self._batch):
                raise ValueError('its inputs would be too large')
            dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            if self._files and len(shape) == 4:
                inputs[info.name] = self._read_images(shape, dtype, number)
            else:
                inputs[info.name] = _make_noise(random, shape, dtype)
        return inputs

    def _read_images(self, shape: tuple[int, ...], dtype: np.dtype, number: int) -> np.ndarray:
        is_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
        height, width = shape[1:3] if is_last else shape[2:]
        channels = shape[3] if is_last else shape[1]
        if channels not in (1, 3):
            raise ValueError(f'`data` goes with images of 1 or 3 channels, and the model takes {channels}')
        read = LoadImageFromFile(color_type='color' if channels == 3 else 'grayscale')
        images = []
        for place in range(number * shape[0], (number + 1) * shape[0]):
            image = read(dict(img_path=str(self._files[place % len(self._files)])))['img']
            image = imresize(image, (width, height)).reshape(height, width, channels)[..., ::-1]
            if dtype != np.uint8:
                image = (image - np.array(_MEAN[:channels])) / np.array(_STD[:channels])
            images.append(image if is_last else image.transpose(2, 0, 1))
        return np.ascontiguousarray(np.stack(images)).astype(dtype)


def _name_axes(info: onnx.ValueInfoProto) -> list[int | str]:
    """The length of each axis of an input, or its name if it is free."""
    if not info.type.HasField('tensor_type') or info.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        raise ValueError(f'the input {info.name} of the model is none of numbers, so the model can not be run on noise')
    dims = info.type.tensor_type.shape.dim
    return [dim.dim_value or dim.dim_param or f'{info.name}.{place}' for place, dim in enumerate(dims)]


def _find_sides(axes: list[int | str]) -> list[int | str]:
    """Height and width: the last two, or the two before the channels."""
    return axes[1:3] if axes[3] in (1, 3) and axes[1] not in (1, 3) else axes[2:]


def _make_noise(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype == np.uint8:
        return random.integers(0, 256, shape, dtype)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.ones(shape, dtype)  # what it counts is not known: one is an index, a length and a divisor
    return random.standard_normal(shape).astype(dtype)

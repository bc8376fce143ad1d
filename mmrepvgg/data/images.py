"""Single image files: find them, and read them through a config's test pipeline."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor

from ..models.config_types import get_type_name
from ..printable import make_printable
from .folders import IMAGE_SUFFIXES, find_images
from .wrappers import get_test_pipeline


class UnreadableImageError(ValueError):
    """An image that a pipeline can't read. The message says why.

    Attributes:
        reason: The same without the name of the file and without advice, if the message has them.
    """

    reason = ''

    @classmethod
    def of(cls, path: str | Path, reason: str) -> 'UnreadableImageError':
        """The error of an image of a data set, with its name and advice."""
        error = cls(
            f'{make_printable(str(path))} can not be read: {reason}; repair or remove it. `train` goes on without such '
            'images with `skip_damaged`'
        )
        error.reason = reason
        return error


def list_images(paths: Iterable[str | Path], without: str | Path | None = None) -> list[tuple[Path, Path]]:
    """List the images in ``paths``, in their order. A folder gives the images that :func:`find_images` finds in it.

    A file may have any suffix. In folders only files with the suffixes of images count.

    Args:
        paths: Files and folders.
        without: Folder to leave out if it lies in another one.

    Returns:
        list[tuple[Path, Path]]: Path of each image, and its path relative to the folder in ``paths``.

    Raises:
        TypeError: If ``paths`` is one path.
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder holds no image.
    """
    if isinstance(paths, str | os.PathLike):
        raise TypeError(f'`paths` must be a list of files and folders, got {paths!r}')
    found: list[tuple[Path, Path]] = []
    for path in map(Path, paths):
        if path.is_dir():
            if not (images := find_images(path, without=without)):
                raise ValueError(f'{make_printable(str(path))} holds no image ({", ".join(IMAGE_SUFFIXES)})')
            start = os.path.join(path, '')  # faster than `path / image`
            found += [(Path(start + image), Path(image)) for image in images]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f'{make_printable(str(path))} does not exist')
    return found


def _build_pipeline(cfg: Config, without: str) -> Compose:
    """The test pipeline without the steps whose type has ``without`` in its name."""
    steps = [step for step in get_test_pipeline(cfg) if without not in get_type_name(step['type'])]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        return Compose([TRANSFORMS.build(step) for step in steps])


class ImageReader:
    """Reads single files through a config's test pipeline, which gives ``inputs`` and ``data_samples``."""

    def __init__(self, cfg: Config):
        self._pipeline = _build_pipeline(cfg, without='LoadAnnotations')

    def __call__(self, path: Path) -> dict[str, Any]:
        """Read an image.

        Raises:
            UnreadableImageError: If the file is no image, or damaged.
        """
        try:
            if path.stat().st_size:
                # the pipeline wants a label, which nothing reads
                return self._pipeline(dict(img_path=str(path), gt_label=0))
        except Exception as error:
            raise UnreadableImageError(explain_failure(error)) from error
        raise UnreadableImageError('the file is empty')


def explain_failure(error: Exception) -> str:
    """One line that says why an image can't be read. ``error`` may be anything: an assertion, OpenCV's own error."""
    if isinstance(error, UnreadableImageError) and error.reason:
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # and not the name of the file again
    reason = ' '.join(str(error).split()) or 'no reason given'
    return f'{type(error).__name__}: {reason}'[:200]


def iterate_images(
    path: Path, cfg: Config, preprocessor: Callable[[dict[str, Any]], dict[str, Any]], batch_size: int = 16
) -> Iterator[Tensor]:
    """Read an image, or the images below a folder, through the config's test pipeline.

    Args:
        path: An image or a folder.
        cfg: The config.
        preprocessor: Data preprocessor of the model.
        batch_size: Largest number of images in a batch.

    Yields:
        Batches ``(N, C, H, W)``, preprocessed.

    Raises:
        ValueError: If there is no image.
        UnreadableImageError: If an image is damaged. The message names it.
    """
    files, read = [file for file, _ in list_images([path])], ImageReader(cfg)
    for start in range(0, len(files), batch_size):
        samples = []
        for file in files[start : start + batch_size]:
            try:
                samples.append(read(file))
            except UnreadableImageError as error:
                raise UnreadableImageError(f'{make_printable(str(file))} can not be read: {error}') from error
        yield preprocessor(pseudo_collate(samples))['inputs']


def iterate_batches(
    samples: Iterable[tuple[int, dict[str, Any]]], batch_size: int
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Put numbered samples into batches, in their order: at most ``batch_size`` images, all of one size.

    In a batch of different sizes all images would be padded to the largest, and predictions would depend on the others.
    """
    batch: list[tuple[int, dict[str, Any]]] = []
    for number, sample in samples:
        if batch and (len(batch) == batch_size or sample['inputs'].shape != batch[0][1]['inputs'].shape):
            yield batch
            batch = []
        batch.append((number, sample))
    if batch:
        yield batch


def find_input_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of the images that the config's test pipeline gives.

    Raises:
        ValueError: If the size depends on the image.
    """
    pipeline = _build_pipeline(cfg, without='LoadImage')
    sizes = []
    # a wide image and a tall one
    for shape in ((480, 640), (640, 480)):
        image = dict(img=np.zeros((*shape, 3), np.uint8), img_shape=shape, ori_shape=shape, gt_label=0)
        sizes.append(tuple(pipeline(image)['inputs'].shape[1:]))
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the config's test pipeline gives images of no fixed size ({sizes[0]} and {sizes[1]} for a wide and a "
            'tall one); give the size by `input_size`'
        )
    return sizes[0]

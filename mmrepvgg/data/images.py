"""Single image files, found and read through a config's test pipeline.

A broken file is reported, so that it need not be the end.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor

from ..models.config_types import get_type_name
from .wrappers import get_test_pipeline

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.ppm', '.tif', '.tiff')


class UnreadableImageError(ValueError):
    """An image that the test pipeline can't take: says why."""


def list_images(paths: Iterable[str | Path], without: str | Path | None = None) -> list[tuple[Path, Path]]:
    """The images named by ``paths``, in their order, a folder's (and its subfolders') sorted in its place.

    A file that is named is taken whatever its suffix; from a folder, the known suffixes. Links are followed; one that
    leads nowhere counts as an image, which will be unreadable.

    Args:
        paths: Files and folders.
        without: A folder that is left out where it is in another one.

    Returns:
        list[tuple[Path, Path]]: Each image, and its path relative to the folder that was named.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder holds no image.
    """
    found: list[tuple[Path, Path]] = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(_walk(path, {Path(without).resolve()} if without else set()))
            if not files:
                raise ValueError(f'{path} holds no image ({", ".join(IMAGE_SUFFIXES)})')
            found += [(file, file.relative_to(path)) for file in files]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise FileNotFoundError(f'{path} does not exist')
    return found


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The images below ``folder``, which may have links that lead back up."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, seen)
        elif path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or path.is_symlink()):
            yield path


def _build_pipeline(cfg: Config, without: str) -> Compose:
    """The test pipeline without the steps that have ``without`` in their type's name."""
    steps = [step for step in get_test_pipeline(cfg) if without not in get_type_name(step['type'])]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        return Compose([TRANSFORMS.build(step) for step in steps])


class ImageReader:
    """A config's test pipeline for single files: path -> what the pipeline packs (``inputs``, ``data_samples``)."""

    def __init__(self, cfg: Config):
        self._pipeline = _build_pipeline(cfg, without='LoadAnnotations')

    def __call__(self, path: Path) -> dict[str, Any]:
        """Read an image.

        Raises:
            UnreadableImageError: If it is no image, or a damaged one.
        """
        try:
            if path.stat().st_size:
                # a label that no file has: the pipeline packs it, and nothing reads it
                return self._pipeline(dict(img_path=str(path), gt_label=0))
        except Exception as error:
            raise UnreadableImageError(explain_failure(error)) from error
        raise UnreadableImageError('the file is empty')


def explain_failure(error: Exception) -> str:
    """One line on why an image can't be read. The readers raise whatever they like: assertions, OpenCV's own errors."""
    reason = ' '.join(str(error).split()) or 'no reason given'
    return f'{type(error).__name__}: {reason}'[:200]


def iterate_images(
    path: Path, cfg: Config, preprocessor: Callable[[dict[str, Any]], dict[str, Any]], batch_size: int = 16
) -> Iterator[Tensor]:
    """Read an image, or the images below a folder, by the config's test pipeline.

    Yields:
        Batches ``(N, C, H, W)`` of at most ``batch_size``, as ``preprocessor`` (a model's) makes them.

    Raises:
        ValueError: If there is no image.
        UnreadableImageError: If one of them is damaged; names it.
    """
    files, read = [file for file, _ in list_images([path])], ImageReader(cfg)
    for start in range(0, len(files), batch_size):
        samples = []
        for file in files[start : start + batch_size]:
            try:
                samples.append(read(file))
            except UnreadableImageError as error:
                raise UnreadableImageError(f'{file} can not be read: {error}') from error
        yield preprocessor(pseudo_collate(samples))['inputs']


def iterate_batches(
    samples: Iterable[tuple[int, dict[str, Any]]], batch_size: int
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Put numbered samples together, in their order, at most ``batch_size`` and all of one image size.

    Images of different sizes would be padded to the largest, and what is predicted would depend on the neighbours.
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
    """Height and width in pixels of what the config's test pipeline gives.

    Raises:
        ValueError: If that depends on the image.
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
            'tall one); say which with `input_size`'
        )
    return sizes[0]

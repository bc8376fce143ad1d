"""Image files, found and read one by one, so that a broken one is reported and not the end."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

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


class ImageReader:
    """A config's test pipeline for single files: path -> what the pipeline packs (``inputs``, ``data_samples``)."""

    def __init__(self, cfg: Config):
        if cfg.get('test_dataloader') is None:
            raise ValueError('the config must have a test_dataloader, whose pipeline reads the images')
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            steps = [s for s in cfg.test_dataloader.dataset.pipeline if not s['type'].endswith('LoadAnnotations')]
            self._pipeline = Compose([TRANSFORMS.build(step) for step in steps])

    def __call__(self, path: Path) -> dict[str, Any]:
        """Read an image.

        Raises:
            UnreadableImageError: If it is no image, or a damaged one.
        """
        try:
            if not path.stat().st_size:
                raise UnreadableImageError('the file is empty')
            # a label that no file has: the pipeline packs it, and nothing reads it
            return self._pipeline(dict(img_path=str(path), gt_label=0))
        except UnreadableImageError:
            raise
        # The readers of images raise whatever they like: assertions, OpenCV's own errors, OSError.
        except Exception as error:
            reason = ' '.join(str(error).split()) or 'no reason given'
            raise UnreadableImageError(f'{type(error).__name__}: {reason}'[:200]) from error


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

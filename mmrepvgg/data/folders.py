"""Find the images in folders, of 100,000 files too: one look at each folder, none at each file. Imports no torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

# What OpenCV or Pillow reads.
IMAGE_SUFFIXES = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp', '.ppm', '.pgm', '.pbm', '.pnm', '.tif', '.tiff', '.gif',
    '.avif', '.jp2', '.tga',
)  # fmt: skip


def find_images(
    folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES, without: str | Path | None = None
) -> list[str]:
    """List the images in a folder and its subfolders, sorted by path.

    Links are followed. Nothing with the suffix of an image is left out in silence: links that lead nowhere, and folders
    that hold no image, count as images, and reading them is an error. Names that begin with a dot do not count, as
    those of ``.ipynb_checkpoints``.

    Args:
        folder: The folder.
        suffixes: Endings of the names of images, in small letters.
        without: Folder to leave out.

    Returns:
        list[str]: Paths relative to ``folder``.
    """
    seen = {_identify(without)} if without is not None and os.path.isdir(without) else set()
    return list(_walk(os.fspath(folder), '', tuple(suffixes), seen))


def list_class_folders(folder: str | Path) -> list[str]:
    """The names of the class folders in a folder, sorted. Names that begin with a dot do not count."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith('.') and _is_folder(entry))


def _walk(folder: str, prefix: str, suffixes: tuple[str, ...], seen: set[tuple[int, int]]) -> Iterator[str]:
    """The images below ``folder``. Folders that were seen are skipped: a link may lead back up."""
    identity = _identify(folder)
    if identity in seen:
        return
    seen.add(identity)
    with os.scandir(folder) as found:
        entries = sorted((entry for entry in found if not entry.name.startswith('.')), key=lambda entry: entry.name)
    for entry in entries:
        is_image = entry.name.lower().endswith(suffixes)
        if _is_folder(entry):
            inner = list(_walk(entry.path, f'{prefix}{entry.name}{os.sep}', suffixes, seen))
            if inner or not is_image:
                yield from inner
                continue
        # a pipe would keep its reader waiting for ever
        elif not is_image or not (entry.is_symlink() or entry.is_file()):
            continue
        yield prefix + entry.name


def _is_folder(entry: os.DirEntry) -> bool:
    # `entry.is_dir` raises an error for a link to itself
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _identify(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino

"""Images in lists beside them, as ImageNet has them: ``meta/train.txt`` with ``<image> <number>`` in each line.

Imports no torch.
"""

import os
from pathlib import Path

from ..data.layout import DataError
from .labelled import SPLIT_NAMES, Image, LabelledImages, name_some

_FOLDERS = ('meta', '', 'annotations')


def find_lists(root: Path) -> dict[str, Path]:
    """The lists of a data set, by split. Empty if there is none of training images."""
    for folder in _FOLDERS:
        found = {split: root / folder / f'{split}.txt' for split in SPLIT_NAMES}
        found = {split: path for split, path in found.items() if path.is_file()}
        if 'train' in found:
            return found
    return {}


def read_lists(root: Path, lists: dict[str, Path]) -> LabelledImages:
    """Read lists of images. Their names may be relative to the root, or to its folder with the name of the split.

    The classes have the names in ``classes.txt`` beside the lists, one a line. Without that file they have those of
    the folders, if each class has one, and else their numbers.

    Raises:
        DataError: If a line has no label, or an image is missing. The message names the line.
    """
    notes = []
    numbered: dict[str, list[tuple[str, int]]] = {}
    for split, path in lists.items():
        if split == 'test' and not _has_labels(path):
            notes.append(f'{path} has no labels, so it can not be tested on, and is left out')
            continue
        numbered[split] = _read_list(root, split, path)
    names = _name_classes(lists['train'].parent / 'classes.txt', numbered)
    return LabelledImages(
        root=os.path.abspath(root),
        splits={split: tuple(Image(path, names[i]) for path, i in found) for split, found in numbered.items()},
        classes=tuple(names[i] for i in sorted({i for _, i in numbered['train']})),
        notes=tuple(notes),
    )


def _has_labels(path: Path) -> bool:
    with path.open(encoding='utf-8-sig', errors='replace') as file:
        return file.readline().strip().rpartition(' ')[2].isdecimal()


def _read_list(root: Path, split: str, path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f'{path} must be a text in UTF-8: {error}') from error
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not line.strip():
            continue
        if not name or not label.isdecimal() or len(label) > 9:
            raise DataError(f'{path}, line {number}: {line.strip()[:80]!r} must be "<image> <number of its class>"')
        inside = os.path.join(split, name)
        image = inside if os.path.lexists(root / inside) else name
        if not os.path.lexists(root / image):
            raise DataError(f'{path}, line {number}: {root / name} does not exist, and {root / inside} neither')
        found.append((image, int(label)))
    return found


def _name_classes(path: Path, numbered: dict[str, list[tuple[str, int]]]) -> dict[int, str]:
    labels = sorted({i for images in numbered.values() for _, i in images})
    if path.is_file():
        names = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
        if labels and labels[-1] >= len(names):
            raise DataError(f'{path} names {len(names)} classes, and the lists have the number {labels[-1]}')
        if len(set(names)) < len(names):
            twice = [name for name in names if names.count(name) > 1]
            raise DataError(f'{path} has names twice: {name_some(sorted(set(twice)))}')
        return dict(enumerate(names))
    folders: dict[int, set[str]] = {}
    for images in numbered.values():
        for image, i in images:
            folders.setdefault(i, set()).add(os.path.basename(os.path.dirname(image)))
    alone = [next(iter(names)) for names in folders.values() if len(names) == 1]
    if len(alone) == len(folders) == len(set(alone)):
        return {i: next(iter(names)) for i, names in folders.items()}
    return {i: str(i) for i in labels}

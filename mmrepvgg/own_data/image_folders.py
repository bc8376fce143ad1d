"""Images in class folders: ``<class>/<image>``, or ``train/<class>/<image>`` and ``val/<class>/<image>``.

Imports no torch.
"""

import os
from collections import Counter
from pathlib import Path

from ..data.folders import IMAGE_SUFFIXES, find_images, list_class_folders
from ..data.layout import DataError
from .labelled import SPLIT_NAMES, Image, LabelledImages, name_some


def find_splits(root: Path) -> dict[str, str]:
    """The subfolders that are parts of a data set: ``{'train': 'Training', 'test': 'Test'}``."""
    folders = {name.lower(): name for name in list_class_folders(root)}
    found = {split: [folders[name] for name in names if name in folders] for split, names in SPLIT_NAMES.items()}
    splits = {split: names[0] for split, names in found.items() if names}
    # beside cars and planes it is a class
    if 'train' in splits and len(folders) > len(splits) and not list_class_folders(root / splits['train']):
        return {}
    return splits


def read_class_folders(root: Path) -> LabelledImages:
    """Find the images in class folders.

    Raises:
        DataError: If there are no class folders, or no images in them, or if validation images have other classes.
    """
    splits = find_splits(root)
    if 'train' not in splits:
        if set(splits) == {'val', 'test'}:
            raise DataError(f'{root} has {splits["val"]} and {splits["test"]}, and no folder named train')
        splits = {'train': ''}
    notes = list(_note_others(root))
    images: dict[str, tuple[Image, ...]] = {}
    classes: dict[str, list[str]] = {}
    for split, folder in list(splits.items()):
        if split == 'test' and not list_class_folders(root / folder):
            notes.append(f'{root / folder} has no class folders, so it can not be tested on, and is left out')
            del splits[split]
            continue
        classes[split] = _list_classes(root / folder)
        images[split] = tuple(_list_images(root, folder, classes[split]))
    filled = {split: {image.label for image in found} for split, found in images.items()}
    if not filled['train']:
        raise DataError(
            f'the class folders of {root / splits["train"]} hold no image ({", ".join(sorted(IMAGE_SUFFIXES))})'
        )
    if empty := [name for name in classes['train'] if name not in filled['train']]:
        notes.append(f'class folders without training images, which are left out: {name_some(empty)}')
    for split in set(filled) - {'train'}:
        if absent := sorted(filled['train'] - filled[split]):
            notes.append(f'classes without {split} images: {name_some(absent)}')
    notes += _note_nested(images['train'], splits['train'])
    # otherwise the numbers of the folders would not be those of the classes
    are_numbered = all(set(names) == filled['train'] for names in classes.values())
    return LabelledImages(
        root=os.path.abspath(root),
        splits=images,
        classes=tuple(sorted(filled['train'])),
        folders=splits if are_numbered else None,
        notes=tuple(notes),
    )


def _list_classes(folder: Path) -> list[str]:
    if classes := list_class_folders(folder):
        return classes
    advice = 'put the images of each class into a folder with its name, or give a .csv file with their labels'
    if found := find_images(folder):
        raise DataError(f'{folder} has {len(found)} images and no class folders; {advice}')
    raise DataError(f'{folder} has neither class folders nor images; {advice}')


def _list_images(root: Path, folder: str, classes: list[str]) -> list[Image]:
    return [
        Image(os.path.join(folder, name, image), name)
        for name in classes
        for image in find_images(root / folder / name)
    ]


def _note_others(root: Path) -> list[str]:
    """Files that are not read, since nothing here reads their kind."""
    kinds: Counter[str] = Counter()
    for _, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith('.')]
        suffixes = (os.path.splitext(name)[1].lower() or 'without suffix' for name in files if name[0] != '.')
        kinds.update(suffix for suffix in suffixes if suffix not in IMAGE_SUFFIXES)
    if not kinds:
        return []
    told = name_some((f'{count} {suffix}' for suffix, count in kinds.most_common()), 5)
    return [f'files that are left out, since their names are not those of images: {told}']


def _note_nested(images: tuple[Image, ...], folder: str) -> list[str]:
    """Classes whose images lie in several folders: perhaps these were meant to be the classes."""
    inner: dict[str, set[str]] = {}
    depth = 1 if folder else 0  # <folder>/<class>/<inner folder>/...
    for image in images:
        inner.setdefault(image.label, set()).add(''.join(image.path.split(os.sep)[depth + 1 : -1][:1]))
    return [
        f'the images of {name_some([label])} lie in {len(folders)} folders of its own ({name_some(sorted(folders))}), '
        'and all of them are taken for that one class'
        for label, folders in inner.items()
        if len(folders) > 1 and '' not in folders
    ][:3]

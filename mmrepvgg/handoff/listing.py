"""The list of a folder of inputs: the file, the row and the label of each image. Imports no torch."""

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..data.folders import IMAGE_SUFFIXES
from ..data.relative_paths import list_relative

LIST_NAME = 'list.csv'
INFO_NAME = 'info.json'
COLUMNS = ('name', 'file', 'row', 'label', 'image')

# The formats of the files of inputs, and the types of the numbers in them.
FORMATS = ('npz', 'npy')
DTYPES = ('float32', 'float16', 'uint8')

# The suffixes that a returned name may have. Any other text behind a dot is a part of the name.
_SUFFIXES = ('.npz', '.npy', '.txt', '.bin', *IMAGE_SUFFIXES)

_MAX_COUNT = 1 << 24


class ListError(ValueError):
    """A list that can't be used. The message names the file and the reason."""


@dataclass(frozen=True)
class ListedImage:
    """One line of the list.

    Attributes:
        name: Name of the image, which no other image has.
        file: Path of the file of inputs that holds it, relative to the list.
        row: Row in that file, from 0.
        label: Index of its class.
    """

    name: str
    file: str
    row: int
    label: int


class InputList:
    """The images of a folder of inputs, found by their names.

    Attributes:
        images: Images in the order of the list.
        num_classes: Number of scores that an output must have.
        batch_size: Number of rows of a file. The last file may have fewer.
        filled: Whether the last file was filled with zeros up to ``batch_size`` rows.
    """

    def __init__(self, images: Sequence[ListedImage], num_classes: int, batch_size: int = 1, filled: bool = False):
        self.images = images
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.filled = filled
        self._indices = {image.name: index for index, image in enumerate(images)}
        # the largest number of folders in a name
        self._depth = max((image.name.count('__') for image in images), default=0)
        self._rows: dict[str, list[int]] = {}
        for index in sorted(range(len(images)), key=lambda index: images[index].row):
            self._rows.setdefault(PurePath(images[index].file).stem, []).append(index)

    def find_image(self, name: str) -> int | None:
        """The index of the image that ``name`` names: its name in the list, or a path that ends with it.

        ``val/n01440764/ILSVRC2012_val_00000293.JPEG`` names ``ILSVRC2012_val_00000293``, and ``val/cat/1.png`` names
        ``cat__1``, if the list has these names. None if there is no such image.
        """
        if name in self._indices:
            return self._indices[name]
        *folders, last = name.replace('\\', '/').split('/')
        folders = folders[len(folders) - self._depth :] if len(folders) > self._depth else folders
        stem, suffix = os.path.splitext(last)
        # The longest name comes first: val/cat/1.png is the image cat/1.png and not another image 1.png.
        for start in range(len(folders) + 1):
            for ending in (last, stem) if suffix.lower() in _SUFFIXES else (last,):
                index = self._indices.get('__'.join([*folders[start:], ending]))
                if index is not None:
                    return index
        return None

    def find_rows(self, file: str) -> list[int] | None:
        """The indices of the images whose outputs a file of this name must hold, row by row. None if there are none."""
        rows = self._rows.get(PurePath(file).stem)
        if rows is None and (index := self.find_image(file)) is not None:
            rows = [index]
        return rows


def make_names(paths: Sequence[str]) -> list[str]:
    """Make short names that all differ: without folders and suffixes, if possible, or with folders, or with both.

    Raises:
        ListError: If two paths are the same.
    """
    relative = [PurePath(path) for path in list_relative(paths)]
    for names in (
        [path.stem for path in relative],
        ['__'.join(path.with_suffix('').parts) for path in relative],
        ['__'.join(path.parts) for path in relative],
    ):
        if len(set(names)) == len(names):
            return names
    name, count = Counter(names).most_common(1)[0]
    raise ListError(f'every image must have a name of its own, and {name} is there {count} times')


def write_list(folder: Path, images: Sequence[ListedImage], paths: Sequence[str], info: Mapping[str, Any]) -> None:
    """Write the list of ``folder``, with the paths of the images, and ``info`` about the inputs beside it."""
    # names of files need not be UTF-8
    with open(folder / LIST_NAME, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        for image, path in zip(images, paths, strict=True):
            writer.writerow((image.name, image.file, image.row, image.label, path))
    (folder / INFO_NAME).write_text(json.dumps(info, indent=1) + '\n')


def read_list(folder: str | Path) -> InputList:
    """Read the list of a folder that ``write_inputs`` wrote. The files of inputs themselves may be gone.

    Raises:
        FileNotFoundError: If ``list.csv`` or ``info.json`` does not exist.
        ListError: If one of them is damaged.
    """
    folder = Path(folder)
    for name in (LIST_NAME, INFO_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f'{folder / name} does not exist; give the folder that `write_inputs` wrote '
                f'({LIST_NAME} and {INFO_NAME} are enough)'
            )
    with open(folder / LIST_NAME, newline='', encoding='utf-8-sig', errors='surrogateescape') as file:
        reader = csv.DictReader(file)
        if not {'name', 'file', 'row', 'label'} <= set(reader.fieldnames or ()):
            raise ListError(f'{folder / LIST_NAME} must have the columns {",".join(COLUMNS)}, got {reader.fieldnames}')
        try:
            images = [ListedImage(row['name'], row['file'], int(row['row']), int(row['label'])) for row in reader]
        except (TypeError, ValueError, csv.Error) as error:
            raise ListError(f'{folder / LIST_NAME}, line {reader.line_num}: {error}') from error
    if not images:
        raise ListError(f'{folder / LIST_NAME} lists no image')
    if len({image.name for image in images}) != len(images):
        name, count = Counter(image.name for image in images).most_common(1)[0]
        raise ListError(f'{folder / LIST_NAME} must have every name once, and {name} is there {count} times')
    try:
        info = json.loads((folder / INFO_NAME).read_text())
        listing = InputList(images, int(info['num_classes']), int(info['batch_size']), bool(info['filled']))
        if not 1 <= listing.num_classes <= _MAX_COUNT or not 1 <= listing.batch_size <= _MAX_COUNT:
            raise ValueError(f'num_classes and batch_size must be at least 1, and at most {_MAX_COUNT:,}')
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ListError(f'{folder / INFO_NAME} is damaged: {type(error).__name__}: {error}') from error
    if wrong := [image for image in images if not 0 <= image.label < listing.num_classes]:
        raise ListError(
            f'{folder / LIST_NAME}: labels must be 0 to {listing.num_classes - 1}, got {wrong[0].label} for '
            f'{wrong[0].name}'
        )
    return listing

"""Lists of images, as mmpretrain's data sets read them. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.layout import DataError
from ..printable import make_printable
from .labelled import Image


def write_lists(folder: Path, splits: Mapping[str, Sequence[Image]], classes: Sequence[str]) -> None:
    """Write ``<split>.txt`` with ``<image> <number>`` in each line, and ``classes.txt`` with the names of the classes.

    Raises:
        DataError: If a name can't stand in a line.
    """
    numbers = {name: i for i, name in enumerate(classes)}
    folder.mkdir()
    for split, images in splits.items():
        # a reader takes blanks off the begin of a line
        paths = ((image.path if image.path[:1].strip() else f'./{image.path}', image.label) for image in images)
        lines = [f'{_check_line(path)} {numbers[label]}\n' for path, label in paths]
        (folder / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')
    (folder / 'classes.txt').write_text(''.join(f'{_check_line(name)}\n' for name in classes), encoding='utf-8')


def _check_line(name: str) -> str:
    if name.splitlines() != [name] or any('\ud800' <= each <= '\udfff' for each in name):
        raise DataError(f'{make_printable(name)!r} can not stand in a list of images: rename it to one line of UTF-8')
    return name

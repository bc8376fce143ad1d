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
        lines = [f'{_as_line(image.path)} {numbers[image.label]}\n' for image in images]
        (folder / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')
    (folder / 'classes.txt').write_text(''.join(f'{_as_line(name)}\n' for name in classes), encoding='utf-8')


def _as_line(name: str) -> str:
    if name.splitlines() != [name] or not _is_unicode(name):
        raise DataError(f'{make_printable(name)!r} can not stand in a list of images: rename it to one line of UTF-8')
    # a reader takes blanks off the begin of a line
    return name if name[:1].strip() else f'./{name}'


def _is_unicode(name: str) -> bool:
    return name.isprintable() or not any('\ud800' <= each <= '\udfff' for each in name)

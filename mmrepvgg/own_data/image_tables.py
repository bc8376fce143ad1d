"""Images in a table: a CSV file with the columns ``path``, ``label`` and perhaps ``split``. Imports no torch."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from ..data.layout import DataError
from .labelled import SPLIT_NAMES, Image, LabelledImages, name_some, sort_labels

TABLE_SUFFIXES = ('.csv', '.tsv')
_COLUMNS = {
    'path': ('path', 'image', 'file', 'filename'),
    'label': ('label', 'class'),
    'split': ('split', 'set'),
}
_FORM = 'the first line names the columns: path and label, and split (train, val or test) if you have split the images'


def read_table(path: Path) -> LabelledImages:
    """Read a CSV file. Commas, semicolons and tabs may be between the columns; paths are relative to its folder.

    Raises:
        DataError: If a column, a label or an image is missing, or a split is unknown. The message names the line.
    """
    splits: dict[str, list[Image]] = {}
    missing: list[str] = []
    seen: dict[str, int] = {}
    root = path.absolute().parent
    for number, row in _read_rows(path):
        place = f'{path}, line {number}'
        if not row['path'] or not row['label']:
            raise DataError(f'{place}: the {"label" if row["path"] else "path"} is empty')
        if seen.setdefault(row['path'], number) != number:
            raise DataError(f'{place}: {row["path"]} stands in line {seen[row["path"]]}, too; an image has one label')
        split = row.get('split') or 'train'
        known = next((name for name, names in SPLIT_NAMES.items() if split.lower() in names), None)
        if known is None:
            raise DataError(f'{place}: split must be train, val or test, got {split!r}')
        if not os.path.lexists(root / row['path']):
            missing.append(row['path'])
        splits.setdefault(known, []).append(Image(os.path.normpath(row['path']), row['label']))
    if missing:
        raise DataError(
            f'{path} names {len(missing)} of {len(seen)} images that are not there: {name_some(missing)}; paths are '
            f'relative to {root}'
        )
    if 'train' not in splits:
        raise DataError(f'{path} has no training images; {_FORM}')
    return LabelledImages(
        root=str(root),
        splits={split: tuple(splits[split]) for split in SPLIT_NAMES if split in splits},
        classes=sort_labels(image.label for image in splits['train']),
    )


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of each line, and its values by column."""
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            first = file.readline()
            delimiter = max(',;\t', key=first.count)
            names = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
            columns = {
                column: next((names.index(alias) for alias in aliases if alias in names), None)
                for column, aliases in _COLUMNS.items()
            }
            if columns['path'] is None or columns['label'] is None:
                raise DataError(f'{path} must have the columns path and label, got {first.strip()[:80]!r}; {_FORM}')
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if any(map(str.strip, row)):
                    values = {
                        column: row[i].strip() if i < len(row) else '' for column, i in columns.items() if i is not None
                    }
                    yield reader.line_num + 1, values
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{path} must be a CSV file in UTF-8: {error}') from error

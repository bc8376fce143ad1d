"""Outputs as they come back from a vendor's machine: arrays by file or entry name, or a text with each image's top-k.

Imports no torch. Nothing in a file is executed: arrays are read without pickles.
"""

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .listing import InputList

ARRAY_SUFFIXES = ('.npz', '.npy')

# 'val/n01/x.JPEG: Relay top-0 id: 65, prob: 0.98, class name: sea snake': one line a rank
_RANK_LINE = re.compile(r'(?P<name>.+?)\s*:\s.*?\btop-(?P<rank>\d+)\s+id:\s*(?P<label>-?\d+)\b')
_LABEL = re.compile(r'(-?\d+)(:\S+)?')


class MalformedError(ValueError):
    """An output that can't be scored: says why."""


@dataclass(frozen=True)
class Returned:
    """What came back for one image.

    Attributes:
        name: The image's name as it came back.
        source: Where it was found.
        index: The image's place in the list, None if it is not in there.
        scores: (num_classes,) logits or probabilities, or None.
        labels: Class indices, best first, or None.
        reason: What is wrong with it.
        is_extra: Whether what is wrong is that it is of no listed image.
    """

    name: str
    source: str
    index: int | None = None
    scores: np.ndarray | None = None
    labels: tuple[int, ...] | None = None
    reason: str = ''
    is_extra: bool = False


def read_outputs(paths: Iterable[str | Path], listing: InputList, entry: str | None = None) -> Iterator[Returned]:
    """Read what came back, file by file.

    Args:
        paths: ``.npz`` and ``.npy`` files, folders of these, and texts.

            - An array file with the name of a file of inputs (or of an image) holds that one's rows, (N, num_classes).
            - Any other ``.npz`` has an entry for each image, by its name; or ``names`` (N,) and one array
              (N, num_classes).
            - A text has a line for each image: its name and its classes, best first, each as ``CLASS`` or
              ``CLASS:SCORE``, with blanks, tabs or commas between; or a line for each image and rank, as
              ``NAME: ... top-0 id: CLASS, ...``.
        listing: The images that are expected.
        entry: Which entry of a ``.npz`` of rows is the output, if there are several.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no array file.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f'{path} does not exist')
        if path.is_dir():
            files = sorted(file for file in path.rglob('*') if file.suffix.lower() in ARRAY_SUFFIXES)
            if not files:
                raise FileNotFoundError(f'{path} holds no file that ends in {" or ".join(ARRAY_SUFFIXES)}')
            for file in files:
                yield from _read_arrays(file, file.relative_to(path).as_posix(), listing, entry)
        elif path.suffix.lower() in ARRAY_SUFFIXES:
            yield from _read_arrays(path, path.name, listing, entry)
        else:
            yield from _read_text(path, listing)


def _read_arrays(path: Path, name: str, listing: InputList, entry: str | None) -> Iterator[Returned]:
    rows = listing.find_rows(name)
    try:
        content = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        yield from _refuse(rows, name, path, f'no readable array file ({_shorten(error)})', listing)
        return
    if isinstance(content, np.ndarray):
        if rows is None:
            yield Returned(name, str(path), reason='no input file or image has this name', is_extra=True)
        else:
            yield from _split_rows(content, rows, name, path, listing)
        return
    with content:
        if rows is not None:
            try:
                array = _load_entry(content, _choose_entry(content, entry))
            except MalformedError as error:
                yield from _refuse(rows, name, path, str(error), listing)
            else:
                yield from _split_rows(array, rows, name, path, listing)
        elif 'names' in content.files:
            yield from _read_table(content, path, listing, entry)
        elif any(listing.find_image(key) is not None for key in content.files):
            for key in content.files:
                yield _read_one(content, key, path, listing)
        else:
            keys = ', '.join(content.files[:3])
            reason = f'no input file or image has the name of it or of its entries ({keys})'
            yield Returned(name, str(path), reason=reason, is_extra=True)


def _choose_entry(content: Any, entry: str | None) -> str:
    keys = [key for key in content.files if key != 'names']
    if entry is not None and entry in keys:
        return entry
    if entry is None and len(keys) == 1:
        return keys[0]
    wanted = 'one entry (or name the right one: --entry)' if entry is None else f'an entry {entry}'
    raise MalformedError(f'must have {wanted}, got {", ".join(keys[:5]) or "none"}')


def _load_entry(content: Any, key: str) -> np.ndarray:
    try:
        return content[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MalformedError(f'entry {key} is no readable array ({_shorten(error)})') from error


def _split_rows(array: np.ndarray, rows: list[int], name: str, path: Path, listing: InputList) -> Iterator[Returned]:
    allowed = [len(rows)]
    if listing.filled and len(rows) < listing.batch_size:
        allowed.append(listing.batch_size)
    try:
        table = _shape_table(array, allowed, listing.num_classes)
    except MalformedError as error:
        yield from _refuse(rows, name, path, str(error), listing)
        return
    # rows beyond the listed ones are those that filled the batch
    for index, scores in zip(rows, table, strict=False):
        yield Returned(listing.images[index].name, str(path), index, scores)


def _read_table(content: Any, path: Path, listing: InputList, entry: str | None) -> Iterator[Returned]:
    try:
        names = _load_entry(content, 'names').reshape(-1)
        if names.dtype.kind not in 'US':
            raise MalformedError(f'names must be text, got {names.dtype}')
        names = names.astype(str)
        table = _shape_table(_load_entry(content, _choose_entry(content, entry)), [len(names)], listing.num_classes)
    except MalformedError as error:
        yield Returned(path.name, str(path), reason=str(error))
        return
    for name, scores in zip(names.tolist(), table, strict=True):
        yield _place(name, path, listing, scores=scores)


def _read_one(content: Any, key: str, path: Path, listing: InputList) -> Returned:
    try:
        (scores,) = _shape_table(_load_entry(content, key), [1], listing.num_classes)
    except MalformedError as error:
        return Returned(key, f'{path}[{key}]', listing.find_image(key), reason=str(error))
    return _place(key, f'{path}[{key}]', listing, scores=scores)


def _shape_table(array: np.ndarray, allowed_rows: list[int], num_classes: int) -> np.ndarray:
    """``array`` as (N, num_classes); axes of length 1 may stand anywhere."""
    if array.dtype.kind not in 'fiu':
        raise MalformedError(f'must hold numbers, got {array.dtype}')
    for num_rows in allowed_rows:
        wanted = (num_rows, num_classes)
        if [n for n in array.shape if n != 1] == [n for n in wanted if n != 1]:
            return array.reshape(wanted)
    raise MalformedError(f'must have shape {(allowed_rows[0], num_classes)}, got {array.shape}')


def _read_text(path: Path, listing: InputList) -> Iterator[Returned]:
    """One image's lines are taken together; images whose number of classes is not the usual one are refused."""
    found: list[tuple[str, str, tuple[int, ...]]] = []
    ranks: dict[str, list[tuple[int, int]]] = {}
    try:
        with open(path, encoding='utf-8') as file:
            for number, line in enumerate(file, 1):
                if not line.strip() or line.startswith('#'):
                    continue
                if match := _RANK_LINE.match(line):
                    ranks.setdefault(match['name'], []).append((int(match['rank']), int(match['label'])))
                    continue
                name, labels = _parse_line(line)
                if labels is None:
                    reason = f'must be an image and its classes, best first, got {line.strip()[:60]!r}'
                    yield Returned(name, f'{path}:{number}', listing.find_image(name), reason=reason)
                else:
                    found.append((name, f'{path}:{number}', labels))
    except UnicodeDecodeError:
        yield Returned(path.name, str(path), reason='must be a text in UTF-8, .npz or .npy')
        return
    for name, pairs in ranks.items():
        # an image that is there twice has its ranks twice: each set is an answer of its own
        repeats = max(Counter(rank for rank, _ in pairs).values())
        labels = tuple(label for _, label in sorted(pairs, key=lambda pair: pair[0]))
        found += [(name, str(path), labels[repeat::repeats]) for repeat in range(repeats)]
    usual = Counter(len(labels) for _, _, labels in found).most_common(1)[0][0] if found else 0
    for name, source, labels in found:
        reason = ''
        if len(labels) != usual:
            reason = f'must have {usual} classes as the others, got {len(labels)}'
        elif not all(0 <= label < listing.num_classes for label in labels):
            reason = f'classes must be 0 to {listing.num_classes - 1}, got {labels}'
        elif len(set(labels)) != len(labels):
            reason = f'classes must differ, got {labels}'
        yield _place(name, source, listing, labels=None if reason else labels, reason=reason)


def _parse_line(line: str) -> tuple[str, tuple[int, ...] | None]:
    parts = [part.strip() for part in re.split(r'[\t,]' if re.search(r'[\t,]', line) else r'\s+', line.strip())]
    matches = [_LABEL.fullmatch(part) for part in parts[1:]]
    if not matches or not all(matches):
        return parts[0], None
    return parts[0], tuple(int(match[1]) for match in matches if match)


def _place(name: str, source: object, listing: InputList, **content: Any) -> Returned:
    index = listing.find_image(name)
    if index is None:
        content.update(reason='no listed image has this name', is_extra=True)
    return Returned(name, str(source), index, **content)


def _refuse(rows: list[int] | None, name: str, path: Path, reason: str, listing: InputList) -> Iterator[Returned]:
    """The same reason for each image of a file."""
    if rows is None:
        yield Returned(name, str(path), reason=reason)
    for index in rows or ():
        yield Returned(listing.images[index].name, str(path), index, reason=reason)


def _shorten(error: Exception) -> str:
    # numpy's words for a refused pickle, and for one that can't be mapped
    if 'allow_pickle' in str(error) or 'Python objects' in str(error):
        return 'it holds Python objects, which could run code'
    return ' '.join(str(error).split())[:100] or type(error).__name__

"""Outputs in ``.npz`` and ``.npy`` files. Imports no torch; arrays are read without pickles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.zips import open_zip
from .listing import InputList
from .returned import MalformedError, Returned, place

# Largest number of bytes of one score. A compressed file may be far smaller than its scores.
_MAX_ITEM_SIZE = 16


def read_arrays(path: Path, name: str, listing: InputList, entry: str | None) -> Iterator[Returned]:
    """Read an array file.

    Args:
        path: The file.
        name: Path of the file, relative to the folder that was given.
        listing: The images that are expected.
        entry: Name of the output's entry, for a ``.npz`` file of rows with several entries.
    """
    rows = listing.find_rows(name)
    try:
        content = _open(path, listing)
        if isinstance(content, np.ndarray):
            if rows is None:
                yield Returned(name, str(path), reason='no input file or image has this name', is_extra=True)
            else:
                yield from _split_rows(content, rows, path, listing)
            return
        with content:
            if rows is not None:
                array = _load_entry(content, _choose_entry(content, entry))
                yield from _split_rows(array, rows, path, listing)
            elif 'names' in content.files:
                yield from _read_table(content, path, listing, entry)
            elif any(listing.find_image(key) is not None for key in content.files):
                for key in content.files:
                    yield _read_one(content, key, path, listing)
            else:
                keys = ', '.join(content.files[:3])
                reason = f'no input file or image has the name of it or of its entries ({keys})'
                yield Returned(name, str(path), reason=reason, is_extra=True)
    except MalformedError as error:
        if rows is None:
            yield Returned(name, str(path), reason=str(error))
        for index in rows or ():
            yield Returned(listing.images[index].name, str(path), index, reason=str(error))


def _open(path: Path, listing: InputList) -> Any:
    try:
        with open(path, 'rb') as file:
            start = file.read(6)
        if start[:4] == b'PK\x03\x04':
            open_zip(path, expected=_MAX_ITEM_SIZE * len(listing.images) * listing.num_classes).close()
        elif start != b'\x93NUMPY':  # numpy would take it for a pickle
            raise ValueError('it begins as neither .npy nor .npz does')
        return np.load(path, mmap_mode='r', allow_pickle=False)
    # numpy and zipfile raise many kinds of errors for damaged files, even a MemoryError
    except Exception as error:
        raise MalformedError(f'no readable array file ({_shorten(error)})') from error


def _choose_entry(content: Any, entry: str | None) -> str:
    keys = [key for key in content.files if key != 'names']
    if entry is not None and entry in keys:
        return entry
    if entry is None and len(keys) == 1:
        return keys[0]
    wanted = 'one entry (or name the right one by `entry`)' if entry is None else f'an entry {entry}'
    raise MalformedError(f'must have {wanted}, got {", ".join(keys[:5]) or "no entry"}')


def _load_entry(content: Any, key: str) -> np.ndarray:
    try:
        return content[key]
    except Exception as error:  # damaged files raise many kinds of errors
        raise MalformedError(f'entry {key} is no readable array ({_shorten(error)})') from error


def _split_rows(array: np.ndarray, rows: list[int], path: Path, listing: InputList) -> Iterator[Returned]:
    allowed = [len(rows)]
    if listing.filled and len(rows) < listing.batch_size:
        allowed.append(listing.batch_size)
    table = _shape_table(array, allowed, listing.num_classes)
    # further rows are those that fill the batch
    for index, scores in zip(rows, table, strict=False):
        yield Returned(listing.images[index].name, str(path), index, scores)


def _read_table(content: Any, path: Path, listing: InputList, entry: str | None) -> Iterator[Returned]:
    names: Any = _load_entry(content, 'names').reshape(-1)
    if names.dtype.kind not in 'US':
        raise MalformedError(f'names must be text, got {names.dtype}')
    try:
        names = np.char.decode(names, 'utf-8') if names.dtype.kind == 'S' else names
    except UnicodeDecodeError:
        raise MalformedError('names must be text in UTF-8') from None
    table = _shape_table(_load_entry(content, _choose_entry(content, entry)), [len(names)], listing.num_classes)
    for name, scores in zip(names.tolist(), table, strict=True):
        yield place(name, path, listing, scores=scores)


def _read_one(content: Any, key: str, path: Path, listing: InputList) -> Returned:
    try:
        (scores,) = _shape_table(_load_entry(content, key), [1], listing.num_classes)
    except MalformedError as error:
        return Returned(key, f'{path}[{key}]', listing.find_image(key), reason=str(error))
    return place(key, f'{path}[{key}]', listing, scores=scores)


def _shape_table(array: np.ndarray, allowed_rows: list[int], num_classes: int) -> np.ndarray:
    """``array`` as ``(N, num_classes)``. It may have further axes of length 1 in any place."""
    if array.dtype.kind not in 'fiu':
        raise MalformedError(f'must hold numbers, got {array.dtype}')
    if array.dtype == np.uint16:  # NumPy has no bfloat16, and as whole numbers negative scores are the largest
        raise MalformedError('must hold scores, got uint16, which may be the bits of bfloat16; save them as float32')
    for num_rows in allowed_rows:
        wanted = (num_rows, num_classes)
        if [n for n in array.shape if n != 1] == [n for n in wanted if n != 1]:
            return array.reshape(wanted)
    raise MalformedError(f'must have shape {(allowed_rows[0], num_classes)}, got {array.shape}')


def _shorten(error: Exception) -> str:
    # numpy has two messages for pickles that it refuses
    if 'allow_pickle' in str(error) or 'Python objects' in str(error):
        return 'it holds Python objects, which could run code'
    return ' '.join(str(error).split())[:100] or type(error).__name__

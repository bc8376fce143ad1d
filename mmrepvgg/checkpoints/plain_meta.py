"""What of a checkpoint's ``meta`` is kept: plain data of a bounded size, which every reader takes again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .numpy_stand_ins import PlainArray

# Characters and values. The names of 20,000 classes and the text of a config take less than a quarter.
_MAX_SIZE = 1 << 22
_MAX_DEPTH = 16
_MAX_NUMBERS = 1000
_MAX_INT = 1 << 64


class _NotPlainError(Exception):
    pass


def keep_plain(meta: Mapping[Any, Any]) -> dict[str, Any]:
    """Copy texts, numbers, None, and lists, tuples and dicts of them; small numpy arrays and scalars become numbers.

    What is anything else is left out with the list or the dict's entry that it is in, as is what is too large.
    """
    return _Copier().copy_dict(meta, depth=0)


class _Copier:
    def __init__(self) -> None:
        self._size_left = _MAX_SIZE

    def copy(self, value: Any, depth: int) -> Any:
        self._size_left -= len(value) if isinstance(value, str) else 1
        if self._size_left < 0 or depth > _MAX_DEPTH:
            raise _NotPlainError
        if isinstance(value, PlainArray) and value.is_inert:
            raise _NotPlainError
        if isinstance(value, np.ndarray | np.generic) and value.size <= _MAX_NUMBERS and value.dtype.kind in 'biuf':
            return value.tolist()
        if isinstance(value, Mapping):
            return self.copy_dict(value, depth)
        if isinstance(value, list | tuple):
            items = [self.copy(item, depth + 1) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if type(value) in (str, float, bool, type(None)) or (type(value) is int and abs(value) < _MAX_INT):
            return value
        raise _NotPlainError

    def copy_dict(self, mapping: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        copied = {}
        for key, value in mapping.items():
            try:
                copied[self.copy(key, depth + 1)] = self.copy(value, depth + 1)
            except _NotPlainError:
                continue
        return copied

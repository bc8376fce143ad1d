"""What a pickle gets in place of numpy's types and functions.

numpy's own constructors trust a pickle: with a type that has a subarray, a field or an object in it, bytes of the file
become pointers, and an array reaches beyond its memory. Here a file can name a plain type and give as many bytes as
the shape needs. The type of every array is made by this module.
"""

import math
import pickle
from typing import Any

import numpy as np

# kind and bytes of each number; of other byte orders than this machine's there are none
_CODES = {f'{kind}{size}' for kind, sizes in dict(b='1', i='1248', u='1248', f='248', c='8').items() for size in sizes}
_CODES.add('c16')
# version, byte order, subarray, names, fields, size, alignment, flags: what numpy writes for every plain number
_PLAIN_STATES = [(3, order, None, None, None, -1, -1, 0) for order in '<|=']
_MAX_DIMS, _MAX_SIZE = 32, 1 << 48


class StandInError(pickle.UnpicklingError):
    """A pickle asks for something that it can't have."""


def is_shape(value: Any) -> bool:
    """Whether a value out of a pickle is a tuple of as many sizes, and of such sizes, as arrays and tensors have."""
    return (
        isinstance(value, tuple)
        and len(value) <= _MAX_DIMS
        and all(type(size) is int and 0 <= size < _MAX_SIZE for size in value)
    )


class Inert:
    """Stands in for a class or a function, and for what it makes. It takes everything, and keeps nothing but the name.

    Attributes:
        name: Name of the class or function, which is a text out of the file.
    """

    __slots__ = ('name',)

    def __init__(self, name: str):
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass


class PlainDtype:
    """Stands in for ``numpy.dtype``: the code of a plain number."""

    __slots__ = ('_code',)
    _code: str

    def __new__(cls, code: Any, *flags: Any) -> 'PlainDtype':
        if not isinstance(code, str) or code not in _CODES:
            raise StandInError(f'arrays must be of one of the types {", ".join(sorted(_CODES))}, got {_describe(code)}')
        self = super().__new__(cls)
        self._code = code
        return self

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or state not in _PLAIN_STATES:
            order = _describe(state[1]) if isinstance(state, tuple) and len(state) > 1 else _describe(state)
            raise StandInError(f'arrays must be of plain, little-endian numbers, got a dtype with the state {order}')

    def __reduce__(self) -> Any:
        return self.to_numpy().__reduce__()

    def to_numpy(self) -> np.dtype:
        return np.dtype(self._code)


class PlainArray(np.ndarray):
    """Stands in for ``numpy.ndarray``. It is pickled as numpy's own class, so that other programs can read it.

    Attributes:
        is_inert: Whether it has no numbers, but objects, texts or times, and was left empty.
    """

    is_inert = False

    def __new__(cls, *arguments: Any) -> 'PlainArray':
        if arguments:
            raise StandInError('an array takes its contents as a state')
        return super().__new__(cls, (0,))

    def __setstate__(self, state: Any) -> None:
        if self.shape != (0,):
            raise StandInError('an array takes its contents once')  # something may look at its memory already
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], Inert):
            self.is_inert = True
            return
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], PlainDtype):
            raise StandInError('an array must have a version, a shape, a type, an order and its bytes')
        _, shape, plain_dtype, is_fortran, data = state
        if not is_shape(shape):
            raise StandInError('the shape of an array must be a tuple of at most 32 sizes')
        dtype = plain_dtype.to_numpy()
        num_bytes = math.prod(shape) * dtype.itemsize
        if not isinstance(data, bytes) or len(data) != num_bytes:
            got = len(data) if isinstance(data, bytes) else type(data).__name__
            raise StandInError(f'an array of shape {shape} must have {num_bytes} bytes, got {got}')
        super().__setstate__((1, shape, dtype, bool(is_fortran), data))  # type: ignore[arg-type]  # numpy's stub is wrong

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)


def _reconstruct(array_type: Any, *unused: Any) -> PlainArray:
    """Stands in for numpy's function of this name: an empty array, whose contents follow as its state."""
    if array_type is not PlainArray:
        raise StandInError(f'only plain numpy arrays can be read, got {_describe(array_type)}')
    return PlainArray()


def _make_scalar(dtype: Any, data: Any) -> np.generic:
    """Stands in for numpy's ``scalar``."""
    if not isinstance(dtype, PlainDtype) or not isinstance(data, bytes) or len(data) != dtype.to_numpy().itemsize:
        raise StandInError('a numpy scalar must be a plain number with the bytes that it needs')
    return np.frombuffer(data, dtype.to_numpy())[0]


def make_dtype(code: Any, *flags: Any) -> PlainDtype | Inert:
    """Stands in for ``numpy.dtype`` where arrays of objects, texts and times may stand beside the weights."""
    is_other = isinstance(code, str) and code[:1] in ('O', 'U', 'S', 'M', 'm', 'V')
    return Inert('an array without numbers') if is_other else PlainDtype(code)


def _describe(value: Any) -> str:
    """A text, or the type of anything else: lists in lists can be endless to print."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


def _make_no_bytes() -> bytes:
    """Stands in for ``bytes``, which protocol 2 calls for the contents of an empty array."""
    return b''


# Names in pickles -> what they get.
NUMPY_STAND_INS: dict[str, Any] = {
    'builtins.bytes': _make_no_bytes,
    'numpy.dtype': PlainDtype,
    'numpy.ndarray': PlainArray,
    **{
        f'{module}.{name}': function
        for module in ('numpy._core.multiarray', 'numpy.core.multiarray')  # numpy 2 and numpy 1
        for name, function in (('_reconstruct', _reconstruct), ('scalar', _make_scalar))
    },
}

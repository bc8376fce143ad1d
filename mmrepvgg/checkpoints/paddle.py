"""Paddle's ``.pdparams``: a pickle of a dict of numpy arrays, read without running anything that it names.

Neither numpy's functions nor its classes are handed to the file: stand-ins take their arguments down as data, and
the tensors are made of that afterwards.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .reading import CheckpointError

# numpy's type codes; little-endian, as every machine that trains is
_DTYPES = {
    'f2': torch.float16,
    'f4': torch.float32,
    'f8': torch.float64,
    'u1': torch.uint8,
    'i1': torch.int8,
    'i2': torch.int16,
    'i4': torch.int32,
    'i8': torch.int64,
    'b1': torch.bool,
}
_DAMAGED = (
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
)


def read_paddle(path: Path) -> dict[Any, Any]:
    """Read a file that ``paddle.save`` wrote from a state dict.

    Returns:
        Its dict, with tensors in place of the arrays.

    Raises:
        CheckpointError: If it is damaged, or holds anything but a dict of numeric arrays and plain data.
    """
    try:
        with path.open('rb') as file:
            content = _Reader(file).load()
        if not isinstance(content, dict):
            raise CheckpointError(f'{path} must hold a dict of weights, got {type(content).__name__}')
        return {key: _to_tensor(value) if isinstance(value, _Array) else value for key, value in content.items()}
    except pickle.UnpicklingError as error:
        reason = f'was refused, and nothing in it was run: {error}' if isinstance(error, _Refusal) else 'is damaged'
        raise CheckpointError(
            f"{path} {reason}; expected a dict of arrays as paddle.save writes, or torch.save's format"
        ) from error
    except CheckpointError:
        raise
    except _DAMAGED as error:
        raise CheckpointError(f'{path} is damaged or incomplete: {type(error).__name__}: {error}') from error


class _Refusal(pickle.UnpicklingError):
    pass


class _Inert:
    """What a pickle may name. It can't be changed by one: every state is refused but an array's or a dtype's."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refusal(f'{type(self).__name__} takes no state')


class _Dtype(_Inert):
    """Stands in for ``numpy.dtype``."""

    __slots__ = ('code',)

    def __init__(self, code: Any, *flags: Any):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ('<', '|', '='):
            raise _Refusal(f'only little-endian arrays can be read, got a dtype {state!r}')


class _Array(_Inert):
    """Stands in for ``numpy.core.multiarray._reconstruct``, and for the array that it returns."""

    __slots__ = ('data', 'dtype', 'is_fortran', 'shape')

    def __init__(self, *arguments: Any):
        self.data = b''

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.data = state


class _ArrayType(_Inert):
    """Stands in for ``numpy.ndarray``, which is only named and never called."""

    __slots__ = ()


class _Latin1(_Inert):
    """Stands in for ``_codecs.encode``, by which protocol 2 stores bytes."""

    __slots__ = ()

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != 'latin1':
            raise _Refusal(f'bytes must be encoded as latin1, got {encoding!r}')
        return text.encode('latin1')


class _NoBytes(_Inert):
    """Stands in for ``bytes``, which protocol 2 calls for the contents of an empty array."""

    __slots__ = ()

    def __new__(cls) -> Any:
        return b''


_ALLOWED = {
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _ArrayType,
    'numpy.core.multiarray._reconstruct': _Array,  # numpy 1
    'numpy._core.multiarray._reconstruct': _Array,  # numpy 2
    '_codecs.encode': _Latin1,
    '__builtin__.bytes': _NoBytes,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (stand_in := _ALLOWED.get(f'{module}.{name}')) is None:
            raise _Refusal(f'it refers to {module}.{name}')
        return stand_in


def _to_tensor(array: _Array) -> Tensor:
    if not isinstance(array.dtype, _Dtype) or array.dtype.code not in _DTYPES:
        code = getattr(array.dtype, 'code', array.dtype)
        raise ValueError(f'arrays must be of one of the types {", ".join(_DTYPES)}, got {code!r}')
    dtype, shape = _DTYPES[array.dtype.code], tuple(array.shape)
    num_bytes = dtype.itemsize
    for size in shape:
        num_bytes *= size
    if len(array.data) != num_bytes:
        raise ValueError(f'an array of shape {shape} must have {num_bytes} bytes, got {len(array.data)}')
    if not array.data:
        return torch.empty(shape, dtype=dtype)
    tensor = torch.frombuffer(bytearray(array.data), dtype=dtype)
    if array.is_fortran:
        return tensor.view(shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    return tensor.view(shape)

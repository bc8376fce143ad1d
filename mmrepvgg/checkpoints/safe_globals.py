"""What a Runner checkpoint may hold besides tensors, and nothing more.

torch >= 2.6 loads with ``weights_only=True``, which refuses mmengine's ``HistoryBuffer`` and numpy's arrays; both
are in every checkpoint that a Runner writes. Each entry here was needed; none can be made to run code.
"""

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# HistoryBuffer's own statistics, which it pickles by name.
_STATISTICS = ('min', 'max', 'mean', 'current')
_DTYPE_CLASSES = (type(np.dtype('f8')), type(np.dtype('i8')))


def allow_runner_checkpoints() -> None:
    """Let ``torch.load(..., weights_only=True)`` read Runner checkpoints, for the rest of the process."""
    numpy_modules = ('numpy._core.multiarray', 'numpy.core.multiarray')  # numpy 2's name and numpy 1's
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *_DTYPE_CLASSES,
            (_get_statistic, 'builtins.getattr'),
            *((_reconstruct_array, f'{module}._reconstruct') for module in numpy_modules),
            *((_make_scalar, f'{module}.scalar') for module in numpy_modules),
        ]
    )


def _get_statistic(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, which would reach anything."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'HistoryBuffer has the statistics {", ".join(_STATISTICS)}; got {name!r}')
    return getattr(owner, name)


def _reconstruct_array(subtype: type, shape: tuple[int, ...], typecode: Any) -> np.ndarray:
    """Stands in for numpy's function, for plain arrays only; the contents follow by ``__setstate__``."""
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError(f'a checkpoint may only hold plain numpy arrays, got {subtype!r}')
    return np.ndarray(shape, np.dtype(typecode))


def _make_scalar(dtype: np.dtype, value: bytes) -> np.generic:
    """Stands in for numpy's function, for numbers only."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in 'biufc':
        raise pickle.UnpicklingError(f'a checkpoint may only hold numeric numpy scalars, got {dtype!r}')
    return np.frombuffer(value, dtype, count=1)[0]

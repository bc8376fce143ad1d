"""What a Runner checkpoint may hold besides tensors, and nothing more.

torch >= 2.6 loads with ``weights_only=True``, which refuses mmengine's ``HistoryBuffer`` and numpy's arrays; both
are in every checkpoint that a Runner writes. The one-cycle schedule also stores which of its two functions anneals.
Each entry here was needed; none can be made to run code.
"""

import pickle
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler


class _OneCycle:
    """Stands in for mmengine's scheduler, which a file could otherwise create."""


# Whose functions are pickled by name, where they are, and which they are.
_FUNCTIONS: dict[type, tuple[type, tuple[str, ...]]] = {
    HistoryBuffer: (HistoryBuffer, ('min', 'max', 'mean', 'current')),
    _OneCycle: (OneCycleParamScheduler, ('_annealing_cos', '_annealing_linear')),
}
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
            (_OneCycle, f'{OneCycleParamScheduler.__module__}.{OneCycleParamScheduler.__qualname__}'),
            (_get_function, 'builtins.getattr'),
            *((_reconstruct_array, f'{module}._reconstruct') for module in numpy_modules),
            *((_make_scalar, f'{module}.scalar') for module in numpy_modules),
        ]
    )


def _get_function(owner: Any, name: str) -> Any:
    """Stands in for ``getattr``, which would reach anything."""
    source, names = _FUNCTIONS.get(owner, (None, ())) if isinstance(owner, type) else (None, ())
    if name not in names:
        allowed = ', '.join(name for _, names in _FUNCTIONS.values() for name in names)
        raise pickle.UnpicklingError(f'a checkpoint may refer to the functions {allowed}; got {name!r}')
    return getattr(source, name)


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

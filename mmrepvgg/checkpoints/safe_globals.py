"""What a Runner's checkpoint has besides tensors and plain data, read without trust.

mmengine's ``HistoryBuffer`` and numpy's arrays are in every checkpoint that a Runner writes, and the functions of the
one-cycle schedule in some. Stand-ins take their place. They check all that a file gives them, and leave mmengine's and
numpy's own objects behind, so that a resumed training writes checkpoints that any program can read.
"""

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from .numpy_stand_ins import NUMPY_STAND_INS, Inert, PlainArray, StandInError

_HISTORY_METHODS = ('min', 'max', 'mean', 'current')
_ANNEALING = ('_annealing_cos', '_annealing_linear')


class _History(HistoryBuffer):
    """Stands in for ``HistoryBuffer``, and becomes one when it has its contents."""

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise StandInError('a HistoryBuffer must have a dict as its state')
        values, counts = (_require_row(state.get(key)) for key in ('_log_history', '_count_history'))
        max_length = state.get('max_length')
        if len(values) != len(counts) or type(max_length) is not int or max_length < 1:
            raise StandInError('a HistoryBuffer must have as many counts as values, and a largest length')
        # what the file says about the methods is left out: mmengine knows them
        self._log_history, self._count_history, self.max_length = values, counts, max_length
        self.__class__ = HistoryBuffer


class _OneCycle:
    """Stands in for the scheduler, which is named and never made."""

    def __new__(cls, *arguments: Any) -> Any:
        raise StandInError('a checkpoint can not make a scheduler')


def _get_function(owner: Any, name: Any) -> Any:
    """Stands in for ``getattr``, which would reach anything."""
    if owner is _History and name in _HISTORY_METHODS:
        return name  # not used: see _History
    if owner is _OneCycle and name in _ANNEALING:
        return getattr(OneCycleParamScheduler, name)
    if isinstance(owner, Inert):
        return owner
    raise StandInError(f'a checkpoint may refer to the functions {", ".join(_HISTORY_METHODS + _ANNEALING)} only')


def _require_row(array: Any) -> np.ndarray:
    if not isinstance(array, PlainArray) or array.ndim != 1 or array.dtype.kind not in 'biuf':
        raise StandInError('a HistoryBuffer must hold two rows of numbers')
    return np.array(array)  # of numpy's own class


# Names in pickles -> what they get.
RUNNER_STAND_INS: dict[str, Any] = {
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _OneCycle,
    'builtins.getattr': _get_function,
}


def allow_runner_checkpoints() -> None:
    """Let ``torch.load(..., weights_only=True)`` read a Runner's checkpoints, for the rest of the process.

    This project has a reader of its own. It is for mmpretrain's tools.
    """
    stand_ins = NUMPY_STAND_INS | RUNNER_STAND_INS
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()])

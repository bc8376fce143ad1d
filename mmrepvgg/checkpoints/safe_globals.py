"""What mmengine's Runner may load with ``torch.load(..., weights_only=True)`` besides tensors.

That refuses mmengine's ``HistoryBuffer`` and numpy's arrays, which are in every checkpoint that a Runner writes, and
the functions of the one-cycle schedule. Stand-ins take their place. They check all that a file gives them, and leave
mmengine's and numpy's own objects behind, so that a resumed training writes checkpoints that any program can read.
"""

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from .numpy_stand_ins import NUMPY_STAND_INS, PlainArray, StandInError
from .torch_files import RUNNER_METHODS


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
    history_methods, annealing = RUNNER_METHODS.values()
    if owner is _History and name in history_methods:
        return name  # not used: see _History
    if owner is _OneCycle and name in annealing:
        return getattr(OneCycleParamScheduler, name)
    raise StandInError(f'a checkpoint may refer to the functions {", ".join(history_methods + annealing)} only')


def _require_row(array: Any) -> np.ndarray:
    if not isinstance(array, PlainArray) or array.ndim != 1 or array.dtype.kind not in 'biuf':
        raise StandInError('a HistoryBuffer must hold two rows of numbers')
    return np.array(array)  # of numpy's own class


def allow_runner_checkpoints() -> None:
    """Let ``torch.load(..., weights_only=True)`` read a Runner's checkpoints, for the rest of the process."""
    stand_ins = {
        **NUMPY_STAND_INS,
        **dict(zip(RUNNER_METHODS, (_History, _OneCycle), strict=True)),
        'builtins.getattr': _get_function,
    }
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()])

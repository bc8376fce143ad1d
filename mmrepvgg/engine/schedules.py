"""The learning rates of a resumed training: those of its own config, also where the schedule is another one now."""

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from .loops import POSITION

# What a scheduler changes as it goes on. The rest of its state follows from the config.
_PROGRESS = ('last_step', '_global_step', '_last_value')


def use_schedule_of_config(runner: Any, checkpoint: dict[str, Any]) -> str | None:
    """Change the states of the schedulers in a checkpoint to those that the config of the runner has at its iteration.

    Nothing is changed if the schedule is that of the checkpoint, or if it depends on results of validations.

    Args:
        runner: A Runner whose schedulers are built, and have taken no step.
        checkpoint: The checkpoint that it is to resume.

    Returns:
        str | None: The first difference between the schedules, or None if nothing is changed.
    """
    schedulers = runner.param_schedulers
    if not isinstance(schedulers, list) or any(getattr(each, 'need_val_args', False) for each in schedulers):
        return None
    difference = _find_difference(schedulers, checkpoint.get('param_schedulers'))
    if difference is None:
        return None
    groups = runner.optim_wrapper.param_groups
    saved = checkpoint['optimizer']['param_groups']
    names = _list_scheduled(schedulers)
    # most groups have the same values: one of a kind is enough
    kinds = [tuple(group.get(name) for name in names) for group in groups]
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    places = [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]
    # what a scheduler asks of its optimizer
    few = SimpleNamespace(param_groups=[dict(groups[first]) for first in firsts], _global_step=0, step=_no_step)
    advanced = [copy.copy(scheduler) for scheduler in schedulers]
    for scheduler in advanced:
        scheduler.optimizer = few
        scheduler.base_values = [scheduler.base_values[first] for first in firsts]
    _advance(advanced, runner, checkpoint['meta'])

    for group, place in zip(saved, places, strict=False):
        group.update({name: few.param_groups[place][name] for name in names if name in few.param_groups[place]})
    checkpoint['param_schedulers'] = [
        {
            **scheduler.state_dict(),
            'base_values': fresh.base_values,
            '_last_value': [scheduler._last_value[place] for place in places],
        }
        for scheduler, fresh in zip(advanced, schedulers, strict=True)
    ]
    return difference


def _find_difference(schedulers: list[Any], saved: Any) -> str | None:
    if not isinstance(saved, list) or len(saved) != len(schedulers):
        return f'{len(schedulers)} schedules instead of {len(saved or ())}'
    for scheduler, old in zip(schedulers, saved, strict=True):
        for name, value in scheduler.state_dict().items():
            if name not in _PROGRESS and old.get(name) != value:
                return f'{type(scheduler).__name__} has {name}={_shorten(value)} instead of {_shorten(old.get(name))}'
    return None


def _shorten(value: Any) -> Any:
    """A value of each group of parameters, most of which are the same: each one once."""
    return list(dict.fromkeys(value)) if isinstance(value, list) else value


def _list_scheduled(schedulers: list[Any]) -> list[str]:
    """The entries of an optimizer's groups that schedulers read or write."""
    names = sorted({scheduler.param_name for scheduler in schedulers})
    kept = [f'{part}_{name}' for name in names for part in ('initial', 'max', 'min')]
    return [*names, *kept, *(['betas'] if 'momentum' in names else [])]


def _advance(schedulers: list[Any], runner: Any, meta: Mapping[str, Any]) -> None:
    """Take the steps up to the epoch and the iteration of a checkpoint. Each value follows from the one before."""
    iterations, epochs = meta['iter'], meta['epoch']
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        # an epoch may have had another number of batches
        before = (meta.get(POSITION) or {}).get('of') or (iterations / epochs if epochs else 0)
        iterations = round(iterations * len(runner.train_dataloader) / before) if before else iterations
    length = len(runner.train_dataloader)
    for iteration in range(1, iterations + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
        if iteration % length == 0 and iteration // length <= epochs:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()


def _no_step() -> None:
    pass


_no_step._with_counter = True  # type: ignore[attr-defined]

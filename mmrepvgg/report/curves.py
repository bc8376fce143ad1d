"""The log of a training, as mmengine's LocalVisBackend writes it: a line of JSON a step and a validation.

Imports no torch.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

# A training of one epoch, or without epochs, is shown in so many parts.
_NUM_PARTS = 50


@dataclass(frozen=True)
class Point:
    """An epoch of a training, or some steps of one without epochs.

    Attributes:
        number: Number of the epoch, or of the last step, from 1.
        loss: Mean loss of its steps. None if no step has a finite one.
        rate: Learning rate of its last step. None if the log has none.
        metrics: What the validation after it found, such as ``{'accuracy/top1': 98.9}``; empty if there was none.
    """

    number: int
    loss: float | None
    rate: float | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """A training from its start to its end.

    Attributes:
        points: All of which the log has something.
        unit: What a point is: ``'epoch'`` or ``'step'``.
        num_steps: Number of steps.
    """

    points: tuple[Point, ...]
    unit: str
    num_steps: int

    def list_metrics(self) -> list[str]:
        """The names of what the validations measured."""
        return list(dict.fromkeys(name for point in self.points for name in point.metrics))

    def find_best(self, metric: str) -> Point:
        """The point with the largest value of a metric, of equal ones the first."""
        return max((point for point in self.points if metric in point.metrics), key=lambda each: each.metrics[metric])


class _Step(NamedTuple):
    """What is kept of a step: a long training has a million."""

    epoch: int
    loss: Any
    rate: Any

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> '_Step':
        epoch = record.get('epoch')
        return cls(epoch if type(epoch) is int else 1, record.get('loss'), record.get('lr'))


def read_curves(work_dir: str | Path) -> Curves:
    """Read the logs in a work dir. A run that goes on from a checkpoint takes the place of what came after that."""
    steps: dict[int, _Step] = {}
    validations: dict[int, dict[str, Any]] = {}
    # the folders have the times of their runs as names
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        last, is_first = 0, True
        for record in _read_lines(path):
            if type(record.get('iter')) is int:
                last = record['iter']
                if is_first:
                    steps = {number: each for number, each in steps.items() if number < last}
                    validations = {number: each for number, each in validations.items() if number < last}
                    is_first = False
                steps[last] = _Step.from_record(record)
            elif last:  # a test has no steps before it
                validations[last] = record
    groups: dict[int, list[int]] = {}
    for number, step in sorted(steps.items()):
        groups.setdefault(step.epoch, []).append(number)
    unit = 'epoch'
    if len(groups) == 1:
        unit, (numbers,) = 'step', groups.values()
        size = -(-len(numbers) // _NUM_PARTS)
        groups = {part[-1]: part for part in (numbers[i : i + size] for i in range(0, len(numbers), size))}
    points = tuple(_make_point(number, numbers, steps, validations) for number, numbers in sorted(groups.items()))
    return Curves(points, unit, len(steps))


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(errors='replace') as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # the process was killed while it wrote
                continue
            if isinstance(record, dict):
                yield record


def _make_point(
    number: int,
    numbers: Sequence[int],
    steps: Mapping[int, _Step],
    validations: Mapping[int, Mapping[str, Any]],
) -> Point:
    losses = _list_numbers(steps[step].loss for step in numbers)
    rates = _list_numbers(steps[step].rate for step in numbers)
    metrics: dict[str, float] = {}
    for step in numbers:
        found = validations.get(step, {})
        metrics |= {name: value for name, value in found.items() if '/' in name and _list_numbers([value])}
    return Point(number, fmean(losses) if losses else None, rates[-1] if rates else None, metrics)


def _list_numbers(values: Iterable[Any]) -> Sequence[float]:
    return [value for value in values if type(value) in (int, float) and math.isfinite(value)]

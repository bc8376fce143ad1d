"""What follows from the rows of training steps: the gain over other projects, and the largest batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..measures.timing import Spread
from .cases import OTHER_TRAIN_FORMS, OWN_TRAIN_FORMS, RUNTIMES
from .results import Row, divide


@dataclass(frozen=True)
class TrainingGain:
    """This project's training step against the fastest one of the other projects.

    Attributes:
        row: A row of this project.
        other: The fastest row of the other projects with the same arch, precision, device and batch, in whatever
            layout, and in PyTorch eager, which is how these projects train.
        speed: Quartiles of the ratio of speeds over the rounds.
        memory: Peak of memory as a part of the other's.
    """

    row: Row
    other: Row
    speed: Spread
    memory: float | None


@dataclass(frozen=True)
class BatchMemory:
    """The memory of a training step as a line through the smallest and the largest measured batch.

    Attributes:
        row: The row with the largest batch.
        fixed: Bytes whatever the batch.
        per_image: Bytes for each image.
    """

    row: Row
    fixed: float
    per_image: float

    def count_images(self, limit: float) -> int:
        """The largest batch for which ``limit`` bytes are enough; 0 if there is none."""
        return max(0, int((limit - self.fixed) // self.per_image))


def compare_training(rows: Sequence[Row]) -> list[TrainingGain]:
    """Compare each training step of this project with the fastest one of the others."""
    timed = [row for row in rows if row.time and RUNTIMES[row.case.runtime].trains]
    gains = []
    for row in timed:
        rivals = [other for other in timed if _is_rival(other, row)]
        if row.case.network in OWN_TRAIN_FORMS and rivals:
            other = min(rivals, key=lambda rival: rival.time.median if rival.time else float('inf'))
            memory = row.memory / other.memory if row.memory and other.memory else None
            gains.append(TrainingGain(row, other, divide(other, row), memory))
    return gains


def _is_rival(other: Row, row: Row) -> bool:
    a, b = other.case, row.case
    return (
        a.network in OTHER_TRAIN_FORMS
        and a.runtime == 'train-step'
        and (a.arch, a.precision, a.place) == (b.arch, b.precision, b.place)
    )


def fit_memory(rows: Sequence[Row]) -> list[BatchMemory]:
    """Fit the memory of each training step that was measured with several batch sizes."""
    groups: dict[tuple[object, ...], dict[int, Row]] = {}
    for row in rows:
        if row.memory:
            case = row.case
            key = (case.network, case.model, case.runtime, case.layout, case.precision, case.device)
            groups.setdefault(key, {})[case.batch_size] = row
    fits = []
    for by_batch in groups.values():
        small, large = min(by_batch), max(by_batch)
        if small < large:
            low, high = by_batch[small].memory or 0, by_batch[large].memory or 0
            per_image = (high - low) / (large - small)
            fits.append(BatchMemory(by_batch[large], low - per_image * small, per_image))
    return fits

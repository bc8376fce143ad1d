"""Score outputs by the labels in the list. Imports no torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .listing import InputList
from .returned import Returned

KINDS = ('missing', 'duplicated', 'malformed', 'extra')


@dataclass(frozen=True)
class Problem:
    """A fault of one image or one output.

    Attributes:
        kind: ``'missing'`` for an image without an output, ``'duplicated'`` for an image with several outputs,
            ``'malformed'`` for an output that can't be scored, ``'extra'`` for an output of no listed image. None of
            them counts for the accuracy.
        name: Name of the image, or the name that came back.
        reason: Place and reason of the fault.
    """

    kind: str
    name: str
    reason: str = ''


@dataclass(frozen=True)
class Score:
    """The accuracy of outputs.

    Attributes:
        num_listed: Number of images in the list.
        num_scored: Number of images with exactly one good output.
        num_correct: For each k, the number of scored images whose class is among the first k. If an output has fewer
            than k classes, there is no such k.
        num_tied: Number of scored images for which another class has the same score as the right one.
        problems: Faults of images and outputs.
    """

    num_listed: int
    num_scored: int
    num_correct: dict[int, int]
    num_tied: int = 0
    problems: list[Problem] = field(default_factory=list)

    def get_accuracy(self, k: int, of_all: bool = False) -> float:
        """Top-k accuracy in percent, of the scored images or of all listed ones. NaN if there are none."""
        total = self.num_listed if of_all else self.num_scored
        return 100 * self.num_correct[k] / total if total else float('nan')


def score_outputs(listing: InputList, outputs: Iterable[Returned], topk: tuple[int, ...] = (1, 5)) -> Score:
    """Score outputs. Only one number for each image is kept in memory.

    If scores are equal, the class of the lowest index comes first, as in ``argmax``.

    Args:
        listing: The images and their labels.
        outputs: Outputs that :func:`~mmrepvgg.handoff.outputs.read_outputs` gives.
        topk: Values of k for the top-k accuracies.
    """
    num_images = len(listing.images)
    ranks = np.full(num_images, -1)  # the place of the right class, from 0, or -1 without a good output
    tied = np.zeros(num_images, bool)
    num_answers = np.zeros(num_images, int)
    length = listing.num_classes
    problems: dict[int, Problem] = {}
    extra: list[Problem] = []
    for output in outputs:
        if output.index is None:
            kind = 'extra' if output.is_extra else 'malformed'
            extra.append(Problem(kind, output.name, f'{output.source}: {output.reason}'))
            continue
        index, label = output.index, listing.images[output.index].label
        num_answers[index] += 1
        reason = output.reason
        if output.scores is not None:
            if num_bad := int((~np.isfinite(output.scores)).sum()):
                reason = f'{num_bad} of {listing.num_classes} values are NaN or infinite'
            else:
                ranks[index], tied[index] = _rank(output.scores, label)
        elif output.labels is not None:
            length = min(length, len(output.labels))
            ranks[index] = output.labels.index(label) if label in output.labels else listing.num_classes
        if reason:
            problems[index] = Problem('malformed', listing.images[index].name, f'{output.source}: {reason}')
        if num_answers[index] > 1:
            where = f'the last one in {output.source}'
            problems[index] = Problem('duplicated', listing.images[index].name, f'{num_answers[index]} times, {where}')
    for index in np.flatnonzero(num_answers == 0).tolist():
        problems[index] = Problem('missing', listing.images[index].name)
    ranks[list(problems)] = -1
    scored = ranks >= 0
    return Score(
        num_listed=num_images,
        num_scored=int(scored.sum()),
        num_correct={k: int((scored & (ranks < k)).sum()) for k in topk if k <= length},
        num_tied=int((scored & tied).sum()),
        problems=[problems[index] for index in sorted(problems)] + extra,
    )


def _rank(scores: np.ndarray, label: int) -> tuple[int, bool]:
    equal = scores == scores[label]
    return int((scores > scores[label]).sum() + equal[:label].sum()), bool(equal.sum() > 1)

"""Several models on the same validation images: the two forms, and exported files."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..data.images import UnreadableImageError, iterate_batches
from ..data.samples import Samples
from ..measures.accuracy import Tally
from ..measures.difference import Difference
from ..printable import make_printable
from ..progress import track

# Images that a model takes at once.
BATCH_SIZE = 16

# A function from packed images (N, C, H, W), uint8, to the scores (N, classes) of a model.
Score = Callable[[Tensor], Tensor]


@dataclass
class Comparison:
    """A model compared with the trained one, image by image.

    Attributes:
        right: Counts the images that it predicts right.
        agreeing: Counts the images for which both predict the same class.
        difference: The difference of their scores.
    """

    right: Tally = field(default_factory=Tally)
    agreeing: Tally = field(default_factory=Tally)
    difference: Difference = field(default_factory=Difference)


@dataclass(frozen=True)
class Scored:
    """Validation images and what the trained model predicts for them.

    Attributes:
        samples: The validation data.
        indices: Places of the images in ``samples``.
        labels: Their classes ``(N,)``.
        probabilities: Of each class ``(N, classes)``.
        comparisons: The other models, by name.
        failures: Why a model could not be run, by name.
        unreadable: Images that could not be read, with the reasons.
    """

    samples: Samples
    indices: list[int]
    labels: Tensor
    probabilities: Tensor
    comparisons: Mapping[str, Comparison]
    failures: Mapping[str, str]
    unreadable: tuple[str, ...]

    @property
    def predicted(self) -> Tensor:
        """The predicted classes ``(N,)``."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * (self.predicted == self.labels).double().mean().item()

    def name(self, number: int) -> str:
        """The file of an image, as a text that is safe to show."""
        index = self.indices[number]
        return make_printable(str(self.samples.get_info(index).get('img_path', f'image {index}')))

    def read(self, number: int) -> Tensor:
        """An image ``(C, H, W)``, as its pipeline packs it."""
        return self.samples[self.indices[number]]['inputs']


def score_images(samples: Samples, trained: Score, others: Mapping[str, Score], num_samples: int) -> Scored:
    """Run all models on the same images.

    Args:
        samples: The validation data.
        trained: The trained model, which gives logits.
        others: Other models, by name. One that fails is left out from there on.
        num_samples: Number of images. If there are more, they are drawn, with seed 0.

    Raises:
        ValueError: If the images have no labels, or if none can be read.
    """
    drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:num_samples].sort().values
    unreadable: list[str] = []
    comparisons = {name: Comparison() for name in others}
    failures: dict[str, str] = {}
    indices: list[int] = []
    labels: list[Tensor] = []
    logits: list[Tensor] = []

    def read() -> Iterator[tuple[int, dict[str, Any]]]:
        for index in track(drawn.tolist(), 'predicting validation images'):
            try:
                yield index, samples[index]
            except UnreadableImageError as error:
                unreadable.append(str(error))

    for batch in iterate_batches(read(), BATCH_SIZE):
        images = torch.stack([sample['inputs'] for _, sample in batch])
        truth = _stack_labels([sample for _, sample in batch])
        expected = trained(images)
        for name, score in others.items():
            if name not in failures:
                try:
                    _compare(comparisons[name], score(images), expected, truth)
                except Exception as error:  # of any type: a runtime's own
                    failures[name] = describe(error)
        indices += [index for index, _ in batch]
        labels.append(truth)
        logits.append(expected)
    if not indices:
        raise ValueError(f'no validation image can be read; the first one: {unreadable[0]}')
    return Scored(
        samples,
        indices,
        torch.cat(labels),
        torch.cat(logits).softmax(1),
        {name: comparison for name, comparison in comparisons.items() if name not in failures},
        failures,
        tuple(unreadable),
    )


def _stack_labels(samples: list[dict[str, Any]]) -> Tensor:
    labels = [sample['data_samples'].get('gt_label') for sample in samples]
    if any(label is None or label.numel() != 1 for label in labels):
        raise ValueError('the validation images of the config must have one label each, with which mistakes are found')
    return torch.cat(labels)


def _compare(comparison: Comparison, scores: Tensor, expected: Tensor, labels: Tensor) -> None:
    comparison.right.add(scores, labels)
    comparison.agreeing.add(scores, expected)
    comparison.difference.add(expected, scores)


def describe(error: Exception) -> str:
    """An error in one line."""
    line = next(iter(str(error).strip().splitlines()), '')
    return make_printable(line[:300] or type(error).__name__)


def pick_surest(scored: Scored, limit: int) -> list[int]:
    """The surest right prediction of each class, the surest first: numbers of images, at most ``limit``."""
    best: dict[int, int] = {}
    for number in _sort_by_score(scored, scored.predicted == scored.labels):
        best.setdefault(int(scored.labels[number]), number)
    return list(best.values())[:limit]


def pick_wrong(scored: Scored, limit: int) -> list[int]:
    """The wrong predictions that are surest of themselves: numbers of images, at most ``limit``."""
    return _sort_by_score(scored, scored.predicted != scored.labels)[:limit]


def _sort_by_score(scored: Scored, wanted: Tensor) -> list[int]:
    scores = scored.probabilities.max(1).values.masked_fill(~wanted, -math.inf)
    return scores.argsort(descending=True, stable=True)[: int(wanted.sum())].tolist()


def count_confusions(scored: Scored) -> dict[tuple[int, int], int]:
    """How many images of a class are predicted as a class, by both classes, for those pairs that occur."""
    pairs, counts = torch.stack([scored.labels, scored.predicted], 1).unique(dim=0, return_counts=True)
    return {
        (label, predicted): count for (label, predicted), count in zip(pairs.tolist(), counts.tolist(), strict=True)
    }

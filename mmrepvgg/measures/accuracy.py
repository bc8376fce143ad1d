"""Top-1 accuracy and agreement, counted batch by batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Tally:
    """Counts how often predictions are right, or how often two models predict the same class.

    Attributes:
        num_equal: Number of images whose predicted class is the expected one.
        num_images: Number of all images.
    """

    num_equal: int = 0
    num_images: int = 0

    def add(self, scores: Tensor, expected: Tensor) -> None:
        """Count a batch.

        Args:
            scores: Scores ``(N, classes)``. If the best ones are equal, the class of the lowest index is predicted.
            expected: Labels ``(N,)``, or the scores ``(N, classes)`` of another model.
        """
        labels = expected if expected.ndim == 1 else expected.argmax(1)
        self.num_equal += int((scores.argmax(1) == labels.to(scores.device)).sum())
        self.num_images += len(scores)

    @property
    def percent(self) -> float:
        """Percentage of ``num_equal``. NaN if there is no image."""
        return 100 * self.num_equal / self.num_images if self.num_images else float('nan')


def measure_percent(scores: Tensor, expected: Tensor) -> float:
    """Top-1 accuracy in percent, or agreement with another model.

    Args:
        scores: Scores ``(N, classes)``.
        expected: Labels ``(N,)``, or the scores ``(N, classes)`` of another model.
    """
    tally = Tally()
    tally.add(scores, expected)
    return tally.percent

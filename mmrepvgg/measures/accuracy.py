"""Top-1 accuracy and agreement, counted batch by batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Tally:
    """How often two predictions agree, or how often one is right.

    Attributes:
        num_equal: Images for which both have the same class.
        num_images: All images.
    """

    num_equal: int = 0
    num_images: int = 0

    def add(self, scores: Tensor, expected: Tensor) -> None:
        """Count a batch.

        Args:
            scores: ``(N, classes)``; of equal ones the class of lower index is predicted.
            expected: Labels ``(N,)``, or the scores ``(N, classes)`` of another model.
        """
        labels = expected if expected.ndim == 1 else expected.argmax(1)
        self.num_equal += int((scores.argmax(1) == labels.to(scores.device)).sum())
        self.num_images += len(scores)

    @property
    def percent(self) -> float:
        """NaN if there is no image."""
        return 100 * self.num_equal / self.num_images if self.num_images else float('nan')


def measure_percent(scores: Tensor, expected: Tensor) -> float:
    """Top-1 accuracy of ``scores`` against labels, or agreement with other scores, in percent; see :class:`Tally`."""
    tally = Tally()
    tally.add(scores, expected)
    return tally.percent

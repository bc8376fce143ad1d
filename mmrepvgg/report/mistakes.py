"""Which classes are taken for which."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .pictures import draw_matrix
from .scoring import Scored, count_confusions

# With more classes a table of all pairs can't be read, and from some number on no picture of it.
_MAX_IN_TABLE, _MAX_IN_PICTURE = 20, 300
# Rows of the lists.
_NUM_ROWS = 10


@dataclass(frozen=True)
class ClassResult:
    """How one class fares.

    Attributes:
        name: Its name.
        num_images: Number of its images.
        num_right: Number of those that are predicted right.
    """

    name: str
    num_images: int
    num_right: int

    @property
    def share(self) -> float:
        """The share of right predictions."""
        return self.num_right / self.num_images


@dataclass(frozen=True)
class Mistakes:
    """The mistakes in the validation images.

    Attributes:
        matrix: How many images of each class (rows) are predicted as each class. Empty if there are many classes.
        picture: The same as a picture, as a data URI, if there are too many for a table. Empty otherwise.
        pairs: Name of a class, name of the class for which it is taken, and how often; the most frequent first.
        weakest: The classes of which most images are predicted wrong, by their share.
        num_absent: Number of classes of which no image was seen.
    """

    matrix: list[list[int]]
    picture: str
    pairs: list[tuple[str, str, int]]
    weakest: list[ClassResult]
    num_absent: int


def find_mistakes(scored: Scored, names: Sequence[str]) -> Mistakes:
    """Count the mistakes."""
    counts = count_confusions(scored)
    wrong = sorted((pair for pair in counts if pair[0] != pair[1]), key=lambda pair: -counts[pair])
    num_images: Counter[int] = Counter()
    for (label, _), count in counts.items():
        num_images[label] += count
    results = [ClassResult(names[label], number, counts.get((label, label), 0)) for label, number in num_images.items()]
    weakest = sorted((each for each in results if each.num_right < each.num_images), key=lambda each: each.share)
    classes = range(len(names)) if len(names) <= _MAX_IN_TABLE else ()
    shares = {(label, predicted): count / num_images[label] for (label, predicted), count in counts.items()}
    return Mistakes(
        [[counts.get((label, predicted), 0) for predicted in classes] for label in classes],
        draw_matrix(shares, len(names)) if _MAX_IN_TABLE < len(names) <= _MAX_IN_PICTURE else '',
        [(names[label], names[predicted], counts[label, predicted]) for label, predicted in wrong[:_NUM_ROWS]],
        weakest[:_NUM_ROWS],
        len(names) - len(num_images),
    )

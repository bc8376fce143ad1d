"""What came back for an image. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .listing import InputList


class MalformedError(ValueError):
    """An output that can't be scored: says why."""


@dataclass(frozen=True)
class Returned:
    """What came back for one image.

    Attributes:
        name: The image's name as it came back.
        source: Where it was found.
        index: The image's place in the list, None if it is not in there.
        scores: (num_classes,) logits or probabilities, or None.
        labels: Class indices, best first, or None.
        reason: What is wrong with it.
        is_extra: Whether what is wrong is that it is of no listed image.
    """

    name: str
    source: str
    index: int | None = None
    scores: np.ndarray | None = None
    labels: tuple[int, ...] | None = None
    reason: str = ''
    is_extra: bool = False


def place(name: str, source: object, listing: InputList, **content: Any) -> Returned:
    index = listing.find_image(name)
    if index is None:
        content.update(reason='no listed image has this name', is_extra=True)
        name = name[:200]
    return Returned(name, str(source), index, **content)


def refuse(rows: list[int] | None, name: str, path: Path, reason: str, listing: InputList) -> Iterator[Returned]:
    """The same reason for each image of a file."""
    if rows is None:
        yield Returned(name, str(path), reason=reason)
    for index in rows or ():
        yield Returned(listing.images[index].name, str(path), index, reason=reason)

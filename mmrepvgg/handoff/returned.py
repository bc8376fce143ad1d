"""The outputs that came back for an image. Imports no torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .listing import InputList


class MalformedError(ValueError):
    """An output that can't be scored. The message says why."""


@dataclass(frozen=True)
class Returned:
    """The output that came back for one image: scores, or labels, or the reason why there is neither.

    Attributes:
        name: Name of the image as it came back.
        source: Place where the output was found: a file, with an entry or a line.
        index: Place of the image in the list. None if the list does not have it.
        scores: Logits or probabilities ``(num_classes,)``.
        labels: Indices of classes, best first.
        reason: Fault of the output, or an empty string.
        is_extra: Whether the fault is that the output belongs to no listed image.
    """

    name: str
    source: str
    index: int | None = None
    scores: np.ndarray | None = None
    labels: tuple[int, ...] | None = None
    reason: str = ''
    is_extra: bool = False


def place(name: str, source: object, listing: InputList, **content: Any) -> Returned:
    """Find the image that ``name`` names, and make a :class:`Returned` of it. ``content`` gives further attributes."""
    index = listing.find_image(name)
    if index is None:
        content.update(reason='no listed image has this name', is_extra=True)
        name = name[:200]
    return Returned(name, str(source), index, **content)

"""Single predictions, as pictures with the maps of the evidence for them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from ..prediction.cam import locate_evidence, overlay, to_picture
from .pictures import enlarge, to_jpeg_uri
from .scoring import Scored


@dataclass(frozen=True)
class Evidence:
    """Where in an image the evidence for a class is.

    Attributes:
        name: Name of the class.
        probability: Its probability.
        picture: The map over the image, as a data URI. Empty if the model has no such maps.
    """

    name: str
    probability: float
    picture: str


@dataclass(frozen=True)
class Explained:
    """A prediction.

    Attributes:
        file: Name of the image's file.
        label: Name of the right class.
        picture: What the network sees, as a data URI. Empty for images that are neither in colour nor grey.
        evidence: For the predicted class, and for the right one if that is another.
        stage: Name of the earlier stage of which the maps are. None for exact maps of the last one.
    """

    file: str
    label: str
    picture: str
    evidence: tuple[Evidence, ...]
    stage: str | None


@torch.no_grad()
def explain(model: Any, scored: Scored, numbers: Sequence[int], names: Sequence[str]) -> list[Explained]:
    """Show predictions of the trained model.

    Args:
        model: The trained model.
        scored: What it predicts.
        numbers: Numbers of the images in ``scored``.
        names: Names of the classes.
    """
    return [_explain(model, scored, number, names) for number in numbers]


def _explain(model: Any, scored: Scored, number: int, names: Sequence[str]) -> Explained:
    image = scored.read(number)
    label, predicted = int(scored.labels[number]), int(scored.predicted[number])
    classes = list(dict.fromkeys((predicted, label)))
    picture = enlarge(to_picture(image)) if len(image) in (1, 3) else None
    inputs = model.data_preprocessor(dict(inputs=image[None]))['inputs']
    maps: Any = None
    stage = None
    with suppress(ValueError):  # another head has no maps
        maps, stage = locate_evidence(model, inputs.expand(len(classes), -1, -1, -1), torch.tensor(classes))
    return Explained(
        scored.name(number),
        names[label],
        to_jpeg_uri(picture) if picture else '',
        tuple(
            Evidence(
                names[each],
                scored.probabilities[number, each].item(),
                to_jpeg_uri(overlay(picture, maps[i])) if picture and maps is not None else '',
            )
            for i, each in enumerate(classes)
        ),
        stage,
    )

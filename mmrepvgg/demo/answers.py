"""What the forms of a model say about an image: classes, scores, where they look, and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch import Tensor

from ..measures.difference import Difference
from ..measures.timing import summarise, time_interleaved
from ..prediction.cam import locate_evidence, overlay, to_picture
from ..prediction.predictor import RankedClass, get_class_names, rank_classes
from ..runtimes.table import is_exported
from .forms import Form

# Classes that are shown, and the seconds in which a form is timed.
TOPK = 5
WARM_UP, REPEATS, BUDGET = 2, 7, 2.0
# Seconds of rest before each run: the threads of some runtimes look for work for a while.
_PAUSE = 0.02
# Pixels of the short edge of a picture.
_EDGE = 320


@dataclass(frozen=True)
class Answer:
    """What one form says about an image.

    Attributes:
        form: The form.
        classes: Best classes, best first.
        milliseconds: Median time of the network alone, for this one image.
        view: What the network sees, with a map over it of where the evidence for the first class is, if there is one.
        note: What the map is, or why there is none.
        difference: Difference of its logits from those of the first form; of its probabilities, if a form gives only
            these. None for the first form.
    """

    form: Form
    classes: tuple[RankedClass, ...]
    milliseconds: float
    view: Image.Image
    note: str
    difference: Difference | None = None


@torch.no_grad()
def examine(forms: Sequence[Form], path: Path) -> list[Answer]:
    """Run all forms on an image file.

    Raises:
        UnreadableImageError: If the image can't be read.
        ValueError, CheckpointError: If a form can't take the image, or gives scores that are not finite.
    """
    samples = {id(read): read(path) for read in {id(form.read): form.read for form in forms}.values()}
    images = [samples[id(form.read)] for form in forms]
    inputs = [_prepare(form, sample) for form, sample in zip(forms, images, strict=True)]
    scores = [form.model(batch, mode='tensor').float().cpu() for form, batch in zip(forms, inputs, strict=True)]
    for form, score in zip(forms, scores, strict=True):
        if not score.isfinite().all():
            raise ValueError(f'the {form.name} of {form.file.name} gives scores that are not finite')
    probabilities = [
        score.softmax(1) if form.gives_logits else score for form, score in zip(forms, scores, strict=True)
    ]
    compared = scores if all(form.gives_logits for form in forms) else probabilities
    # the copy of the scores makes a GPU finish its work
    runs = [
        lambda form=form, batch=batch: form.model(batch, mode='tensor').cpu()
        for form, batch in zip(forms, inputs, strict=True)
    ]
    times = time_interleaved(runs, repeats=REPEATS, warm_up=WARM_UP, budget=BUDGET, pause=_PAUSE)
    answers = []
    for number, form in enumerate(forms):
        ranked = rank_classes(probabilities[number][0], get_class_names(form.model, scores[number].shape[1]), TOPK)
        view, note = _draw(form, images[number], inputs[number], ranked[0].label)
        difference = Difference()
        difference.add(compared[0], compared[number])
        milliseconds = 1e3 * summarise(times[number]).median
        answers.append(Answer(form, ranked, milliseconds, view, note, difference if number else None))
    return answers


def _prepare(form: Form, sample: dict[str, Any]) -> Tensor:
    return form.model.data_preprocessor(pseudo_collate([sample]), False)['inputs']


def _draw(form: Form, sample: dict[str, Any], inputs: Tensor, label: int) -> tuple[Image.Image, str]:
    """The picture of an image with its map, and what the map is, or why there is none."""
    image = to_picture(sample['inputs'].to(torch.uint8))
    scale = max(1.0, _EDGE / min(image.size))
    image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)
    try:
        (activation,), stage = locate_evidence(form.model, inputs, torch.tensor([label]))
    except ValueError:
        reason = 'this file gives scores only' if is_exported(form.file) else 'the head of this model has none'
        return image, f'No class activation map: {reason}'
    kind = 'Class activation map' if stage is None else f'Evidence at {stage}'
    return overlay(image, activation), f'{kind}: bright parts speak for the first class'

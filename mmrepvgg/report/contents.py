"""All that a report says, found in a work dir and measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.classes import get_trained_classes
from ..data.samples import Samples
from ..prediction.predictor import get_class_names
from ..printable import make_printable
from ..reparam.cost import Cost, measure_cost
from .blocks import Kernels, draw_block
from .candidates import (
    TRAINED,
    Candidate,
    build_forms,
    find_exported,
    list_forms,
    load_files,
    make_score,
    on_device,
    time_candidates,
)
from .curves import Curves, read_curves
from .explaining import Explained, explain
from .mistakes import Mistakes, find_mistakes
from .scoring import Scored, pick_surest, pick_wrong, score_images
from .source import Source, find_source
from .verdicts import Int8Verdict, find_verdict

# Numbers of predictions that are shown: they fill rows of three and of four.
_NUM_WRONG, _NUM_SUREST = 9, 12


@dataclass(frozen=True)
class Contents:
    """What a report says.

    Attributes:
        source: Config and checkpoint.
        curves: The training.
        names: Names of the classes.
        scored: The validation images and their predictions. None if the config has no such images.
        mistakes: Which classes are taken for which. None likewise.
        surest: The surest right prediction of some classes.
        wrong: The wrong predictions that are surest of themselves.
        candidates: The trained model, its deploy form, and exported files.
        failures: Why some exported files could not be run, by name.
        costs: Cost of each form, by name.
        kernels: A block before and after the switch. None if the model has no branches.
        verdict: What `analyze` says. None if it wrote no file there.
        input_size: Height and width of the images in pixels.
    """

    source: Source
    curves: Curves
    names: Sequence[str]
    scored: Scored | None
    mistakes: Mistakes | None
    surest: list[Explained]
    wrong: list[Explained]
    candidates: list[Candidate]
    failures: dict[str, str]
    costs: dict[str, Cost]
    kernels: Kernels | None
    verdict: Int8Verdict | None
    input_size: tuple[int, int]


@torch.no_grad()
def gather(
    work_dir: str | Path, checkpoint: str | Path | None, exported: Iterable[str | Path] | None, num_samples: int
) -> Contents:
    """Read a work dir and measure what is in it. The arguments are those of ``write_report``."""
    source = find_source(work_dir, checkpoint)
    forms = build_forms(source)
    trained = forms.trained
    candidates = list_forms(forms)
    paths = find_exported(work_dir) if exported is None else exported
    files, failures = load_files(paths, work_dir, source.num_classes)
    samples = Samples(source.cfg, 'test', get_trained_classes(source.checkpoint.meta)) if source.has_images else None
    scored = mistakes = None
    surest: list[Explained] = []
    wrong: list[Explained] = []
    names = _list_names(trained, source)
    if samples is not None:
        others = {each.name: make_score(each.model) for each in [*candidates[1:], *files]}
        with on_device([each.model for each in candidates]):
            scored = score_images(samples, make_score(trained), others, num_samples)
        mistakes = find_mistakes(scored, names)
        surest = explain(trained, scored, pick_surest(scored, _NUM_SUREST), names)
        wrong = explain(trained, scored, pick_wrong(scored, _NUM_WRONG), names)
        failures |= scored.failures
        image = scored.read(0)
    else:
        image = _make_noise(source)
    candidates += [each for each in files if each.name not in failures]
    time_candidates(candidates, image)
    return Contents(
        source=source,
        curves=read_curves(work_dir),
        names=names,
        scored=scored,
        mistakes=mistakes,
        surest=surest,
        wrong=wrong,
        candidates=candidates,
        failures=failures,
        costs={
            each.name: measure_cost(source.cfg, each.name != TRAINED, _get_size(image))[-1]
            for each in list_forms(forms)
        },
        kernels=draw_block(trained),
        verdict=find_verdict(work_dir, source.checkpoint.path),
        input_size=_get_size(image),
    )


def _list_names(model: Any, source: Source) -> Sequence[str]:
    names = get_class_names(model, source.num_classes)
    # ImageNet's are lists of synonyms
    is_imagenet = not model._dataset_meta and len(names) == 1000
    return [make_printable(name.split(',')[0] if is_imagenet else name) for name in names]


def _make_noise(source: Source) -> Tensor:
    """A packed image to time the model with, where the config has no validation images."""
    channels = source.cfg.model.backbone.get('in_channels', 3)
    return torch.randint(0, 256, (channels, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _get_size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[1]), int(image.shape[2])

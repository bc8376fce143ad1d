"""From images of one's own to a config: the images are looked at, and the settings follow from what is there."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.convert import convert_checkpoint
from ..checkpoints.writing import replacing
from ..data.layout import DataError
from ..models.archs import get_arch
from .choices import choose_settings
from .config_text import write_config_text
from .finding import find_labelled_images
from .findings import Survey, describe_findings
from .labelled import Image, LabelledImages, name_some
from .lists import write_lists
from .places import Places, name_config
from .splitting import choose_validation
from .start_weights import StartWeights, read_start_weights
from .survey import survey_images

Splits = Mapping[str, tuple[Image, ...]]

_SPLIT_HERE = 'there are no validation images, so a fifth of the images of each class is taken for that'


@dataclass(frozen=True)
class Project:
    """A config for a user's own images.

    Attributes:
        config: Its file.
        commands: The commands to call next: the training, and the quantization of its last checkpoint.
        arch: The network, as in ``model.backbone.arch``.
        size: Height and width of its input, in pixels.
        num_images: Number of images of each split.
        classes: Names of the classes, in the order of their numbers.
        notes: What was found in the data, and what was left out.
    """

    config: Path
    commands: tuple[str, ...]
    arch: str | dict[str, Any]
    size: int
    num_images: Mapping[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def new_project(
    data: str | Path, out: str | Path | None = None, *, arch: str | None = None, weights: str | Path | None = None
) -> Project:
    """Look at all images of a data set, and write a config that trains on them. The images stay as they are.

    Without validation images, a fifth of each class is taken for that, chosen by the pixels. Then, and where the
    folders alone do not say which images to read and which labels they have, lists of them are written into a folder
    beside the config.

    Args:
        data: A folder or table of images, as ``own_data.finding.find_labelled_images`` reads it.
        out: The config to write. Default: a file with the name of the data, in the current folder.
        arch: Name of the arch. Default: that of the weights, or A0.
        weights: Checkpoint in train form to fine-tune, of any system that `convert_checkpoint` reads. Its head is
            left out if it has another number of classes.

    Raises:
        FileNotFoundError: If the data or the weights do not exist.
        FileExistsError: If the config or one of the files beside it exists.
        DataError: If the data can't be trained on.
        CheckpointError, CheckpointFormError: If the weights can't be fine-tuned.
        ValueError: If an argument is out of range.
    """
    places = Places(name_config(data) if out is None else Path(out))
    places.require_free()
    if arch is not None:
        get_arch(arch)
    found = find_labelled_images(data)
    start = None if weights is None else read_start_weights(weights, arch)
    survey = _survey(found)
    notes = [*found.notes, *describe_findings(found, survey)]
    splits = {split: tuple(image for image, r in pairs if not r.fault) for split, pairs in survey.items()}
    _require_each_class(found, splits['train'], 'can be read')
    lists_reason = '' if found.folders is None else None
    if any(len(images) < len(found.splits[split]) for split, images in splits.items()):
        lists_reason = 'Images that can not be read are not in them.'
    if 'val' not in splits:
        notes.append(_SPLIT_HERE)
        lists_reason = 'A fifth of each class is for validation; images with the same pixels are on the same side.'
        splits |= _split(survey)
        _require_each_class(found, splits['train'], 'is in no other class')
    whole = [reading for pairs in survey.values() for _, reading in pairs if not reading.fault]
    choices = choose_settings([min(each.height, each.width) for each in whole], len(splits['train']), start is not None)
    commands = places.list_commands(choices.epochs)
    text = write_config_text(
        places,
        found,
        {split: len(images) for split, images in splits.items()},
        choices,
        arch or 'A0',
        start,
        is_transparent=any(each.is_transparent for each in whole),
        lists_reason=lists_reason,
        commands=commands,
    )
    _write(places, text, found, None if lists_reason is None else splits, start)
    return Project(
        config=places.config,
        commands=commands,
        arch=start.arch if start else arch or 'A0',
        size=choices.size,
        num_images={split: len(images) for split, images in splits.items()},
        classes=found.classes,
        notes=tuple(notes),
    )


def _survey(found: LabelledImages) -> Survey:
    images = [image for split in found.splits.values() for image in split]
    readings = iter(survey_images([str(Path(found.root, image.path)) for image in images]))
    return {split: [(image, next(readings)) for image in part] for split, part in found.splits.items()}


def _split(survey: Survey) -> dict[str, tuple[Image, ...]]:
    pairs = [(image, reading) for image, reading in survey['train'] if not reading.fault]
    chosen = choose_validation([image.label for image, _ in pairs], [reading.digest for _, reading in pairs])
    if not any(chosen):
        raise DataError('no class has two different images, so none can be taken for validation')
    sides = {'train': False, 'val': True}
    return {
        split: tuple(image for (image, _), each in zip(pairs, chosen, strict=True) if each is side)
        for split, side in sides.items()
    }


def _require_each_class(found: LabelledImages, images: tuple[Image, ...], reason: str) -> None:
    counts = Counter(image.label for image in images)
    if empty := [name for name in found.classes if not counts[name]]:
        raise DataError(
            f'classes of {found.root} without a training image that {reason}: {name_some(empty)}; add some, or take '
            'the classes out'
        )


def _write(places: Places, text: str, found: LabelledImages, splits: Splits | None, start: StartWeights | None) -> None:
    """Write all files, or none."""
    with ExitStack() as stack:
        if start and start.must_be_converted:
            convert_checkpoint(start.path, stack.enter_context(replacing(places.weights)))
        if splits:
            write_lists(stack.enter_context(replacing(places.lists, 'train.txt')), splits, found.classes)
        stack.enter_context(replacing(places.config)).write_text(text, encoding='utf-8')

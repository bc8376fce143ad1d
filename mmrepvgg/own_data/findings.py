"""What a look at all images has found that a user should know. Imports no torch."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ..printable import make_printable
from .labelled import Image, LabelledImages, name_some
from .readings import Reading

# Fewer images of a class can hardly be learnt.
_FEW = 10
# From here on most of the time of a training goes into decoding.
_LARGE = 2_000_000

Survey = Mapping[str, Sequence[tuple[Image, Reading]]]


def describe_findings(found: LabelledImages, survey: Survey) -> list[str]:
    """Describe, a line each: images that can't be read, small classes, duplicates, one colour, transparency, size."""
    pairs = [pair for split in survey.values() for pair in split]
    whole = [(image, reading) for image, reading in pairs if not reading.fault]
    notes: list[str] = []
    if damaged := [(image, reading) for image, reading in pairs if reading.fault]:
        told = '; '.join(f'{make_printable(image.path)}: {reading.fault}' for image, reading in damaged[:3])
        more = '; ...' if len(damaged) > 3 else ''
        notes.append(f'images that can not be read, and are left out: {len(damaged)} ({told}{more})')
    counts = Counter(image.label for image, reading in survey['train'] if not reading.fault)
    if few := [f'{name}: {counts[name]}' for name in found.classes if counts[name] < _FEW]:
        notes.append(f'classes of fewer than {_FEW} images for training: {len(few)} ({name_some(few, 5)})')
    notes += _describe_duplicates(survey)
    if flat := [image.path for image, reading in whole if reading.is_one_colour]:
        notes.append(f'images of one colour: {len(flat)} ({name_some(flat)})')
    if clear := sum(reading.is_transparent for _, reading in whole):
        notes.append(f'images that are transparent in places: {clear} of {len(whole)}; the config puts them on white')
    if large := sum(reading.height * reading.width > _LARGE for _, reading in whole):
        notes.append(
            f'images of more than {_LARGE / 1e6:g} million pixels: {large}; the training is faster if you make them '
            'smaller once'
        )
    return notes


def _describe_duplicates(survey: Survey) -> list[str]:
    """Files with the same pixels, which may be of different files."""
    notes = []
    labels: dict[bytes, dict[str, str]] = {}
    splits: dict[bytes, dict[str, str]] = {}
    for split, pairs in survey.items():
        for image, reading in pairs:
            if not reading.fault:
                labels.setdefault(reading.digest, {}).setdefault(image.label, image.path)
                splits.setdefault(reading.digest, {}).setdefault(split, image.path)
    if twice := [paths for paths in labels.values() if len(paths) > 1]:
        told = ' and '.join(make_printable(path) for path in list(twice[0].values())[:2])
        notes.append(f'images in several classes, pixel by pixel: {len(twice)} ({told}{_more(twice)})')
    for split in [name for name in survey if name != 'train']:
        if leaked := [paths for paths in splits.values() if {'train', split} <= set(paths)]:
            told = make_printable(f'{leaked[0]["train"]} and {leaked[0][split]}')
            notes.append(
                f'{split} images that are training images, too, pixel by pixel: {len(leaked)} ({told}{_more(leaked)}); '
                'the accuracy will look better than it is'
            )
    return notes


def _more(found: Sequence[object]) -> str:
    return ', ...' if len(found) > 1 else ''

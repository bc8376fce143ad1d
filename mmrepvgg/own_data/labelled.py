"""Images with labels, as a user's folder, table or lists name them. Imports no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..data.layout import DataError
from ..printable import make_printable

# The names that parts of a data set go by.
SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}


@dataclass(frozen=True)
class Image:
    """One image: its path, relative to the root of the data or absolute, and the name of its class."""

    path: str
    label: str


@dataclass(frozen=True)
class LabelledImages:
    """The images of a data set.

    Attributes:
        root: The folder of the paths.
        splits: The images of ``'train'``, and of ``'val'`` and ``'test'`` where there are some.
        classes: Names of the classes, in the order of their numbers.
        folders: Subfolder of each split, if all that these folders hold are the class folders of just these images.
        notes: What a user should know of it.
    """

    root: str
    splits: Mapping[str, tuple[Image, ...]]
    classes: tuple[str, ...]
    folders: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, images in self.splits.items():
            if not images:
                raise DataError(f'{self.root} has no image for {split}')
            if unknown := sorted({image.label for image in images} - set(self.classes)):
                raise DataError(
                    f'{split} images of {self.root} are of classes without training images, which no model can know: '
                    f'{name_some(unknown)}; add training images of them, or take them out'
                )
        if len(self.classes) < 2:
            raise DataError(
                f'{self.root} has one class, {name_some(self.classes)}, and a classifier needs two at least; the '
                'folder to give is the one that holds the class folders'
            )


def name_some(names: Iterable[str], num: int = 3) -> str:
    """The first names of several, fit for a terminal."""
    names = list(names)
    return make_printable(', '.join(names[:num]) + (', ...' if len(names) > num else ''))


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels in the order of their numbers: that of the numbers if all are numbers, else of the alphabet."""
    found = set(labels)
    return tuple(sorted(found, key=int) if all(map(str.isdecimal, found)) else sorted(found))

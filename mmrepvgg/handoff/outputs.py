"""Read the outputs that come back from a vendor's machine: arrays, or texts with the top-k classes of each image.

Imports no torch. Nothing in a file is executed: arrays are read without pickles.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .arrays import read_arrays
from .listing import InputList
from .returned import Returned
from .texts import read_text

ARRAY_SUFFIXES = ('.npz', '.npy')
TEXT_SUFFIXES = ('.txt', '.csv', '.tsv')


def read_outputs(paths: Iterable[str | Path], listing: InputList, entry: str | None = None) -> Iterator[Returned]:
    """Read outputs, file by file.

    Args:
        paths: ``.npz`` and ``.npy`` files, texts, and folders of these. Texts in a folder with arrays are not read.

            - An array file with the name of a file of inputs, or of an image, holds its outputs ``(N, num_classes)``.
            - Any other ``.npz`` has an entry for each image, with the image's name, or ``names`` ``(N,)`` and one array
              ``(N, num_classes)``.
            - A text has a line for each image: its name and its classes, best first. A class is written as ``CLASS``
              or ``CLASS:SCORE``; blanks, tabs or commas stand between. Or a text has a line for each image and rank:
              ``NAME: ... top-0 id: CLASS, ...``.
        listing: The images that are expected.
        entry: Name of the output's entry, for ``.npz`` files of rows with several entries.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds neither arrays nor texts.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f'{path} does not exist')
        if path.is_dir():
            arrays, texts = (_find_files(path, suffixes) for suffixes in (ARRAY_SUFFIXES, TEXT_SUFFIXES))
            if not (arrays or texts):
                allowed = ', '.join([*ARRAY_SUFFIXES, *TEXT_SUFFIXES])
                raise FileNotFoundError(f'{path} holds no file that ends in any of {allowed}')
            for file in arrays:
                yield from read_arrays(file, file.relative_to(path).as_posix(), listing, entry)
            for file in texts if not arrays else ():
                yield from read_text(file, listing)
        elif path.suffix.lower() in ARRAY_SUFFIXES:
            yield from read_arrays(path, path.name, listing, entry)
        else:
            yield from read_text(path, listing)


def _find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(file for file in folder.rglob('*') if file.suffix.lower() in suffixes)

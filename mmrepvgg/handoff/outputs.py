"""Outputs as they come back from a vendor's machine: arrays by file or entry name, or a text with each image's top-k.

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
    """Read what came back, file by file.

    Args:
        paths: ``.npz`` and ``.npy`` files, texts, and folders of these (of texts, where there are no arrays).

            - An array file with the name of a file of inputs (or of an image) holds that one's rows, (N, num_classes).
            - Any other ``.npz`` has an entry for each image, by its name; or ``names`` (N,) and one array
              (N, num_classes).
            - A text has a line for each image: its name and its classes, best first, each as ``CLASS`` or
              ``CLASS:SCORE``, with blanks, tabs or commas between; or a line for each image and rank, as
              ``NAME: ... top-0 id: CLASS, ...``.
        listing: The images that are expected.
        entry: Which entry of a ``.npz`` of rows is the output, if there are several.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds nothing that could be an output.
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

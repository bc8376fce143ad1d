"""Find the labelled images in what a user gives: a folder, or a table. Imports no torch."""

from pathlib import Path

from .image_folders import read_class_folders
from .image_lists import find_lists, read_lists
from .image_tables import TABLE_SUFFIXES, read_table
from .labelled import LabelledImages


def find_labelled_images(data: str | Path) -> LabelledImages:
    """Find images and their classes.

    Args:
        data: A folder of class folders; one with ``train`` and perhaps ``val`` and ``test``, which hold class folders;
            one with lists, such as ``meta/train.txt``; or a CSV file.

    Raises:
        FileNotFoundError: If it does not exist.
        DataError: If it has no labelled images of two classes at least.
    """
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f'{data} does not exist')
    if path.is_dir():
        lists = find_lists(path)
        return read_lists(path, lists) if lists else read_class_folders(path)
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise ValueError(f'`data` must be a folder, or a file that ends in {" or ".join(TABLE_SUFFIXES)}, got {data}')
    return read_table(path)

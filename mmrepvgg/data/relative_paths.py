"""Paths of files, relative to the folder of all. Imports no torch."""

import os
from collections.abc import Sequence


def list_relative(paths: Sequence[str]) -> list[str]:
    """The paths relative to the deepest folder that holds all of them."""
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''
    start = os.path.join(root, '')
    # `os.path.relpath` takes a second for 100,000 paths
    return [path[len(start) :] if path.startswith(start) else os.path.relpath(path, root or '.') for path in paths]

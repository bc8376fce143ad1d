"""Names of files: in messages, and relative to the folder of all. Imports no torch."""

import os
from collections.abc import Sequence
from pathlib import Path


def show_name(path: str | Path) -> str:
    """A path, or another name, in one line. Line breaks and control characters are written as in Python."""
    text = str(path)
    if text.isprintable():
        return text
    return ''.join(char if char.isprintable() else char.encode('unicode_escape').decode() for char in text)


def list_relative(paths: Sequence[str]) -> list[str]:
    """The paths relative to the deepest folder that holds all of them."""
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''
    start = os.path.join(root, '')
    # `os.path.relpath` takes a second for 100,000 paths
    return [path[len(start) :] if path.startswith(start) else os.path.relpath(path, root or '.') for path in paths]

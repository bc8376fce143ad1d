"""Names of files in messages. Imports no torch."""

from pathlib import Path


def show_name(path: str | Path) -> str:
    """A path in one line. What no terminal should print (line breaks, control characters) is written as in Python."""
    return ''.join(char if char.isprintable() else char.encode('unicode_escape').decode() for char in str(path))

"""The error of a file that can't be used."""

from collections.abc import Iterable
from typing import Any

from ..printable import make_printable


class CheckpointError(ValueError):
    """A checkpoint that can't be used: says which file, why, and what to do. Names out of the file are printable."""

    def __init__(self, message: str):
        super().__init__(make_printable(message))


def list_keys(keys: Iterable[Any], limit: int = 20) -> str:
    """Some keys for a message, and how many more there are."""
    texts = [str(key) for key in keys]
    return ', '.join(text[:200] for text in texts[:limit]) + (
        f' and {len(texts) - limit} more' if len(texts) > limit else ''
    )

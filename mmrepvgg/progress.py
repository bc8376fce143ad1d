"""Progress bars on stderr, so that stdout stays a tool's result; silent where nobody watches. Imports no torch."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar('T')


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Pass ``items`` on and show how many of ``total`` (default: their own length) have passed."""
    console = Console(stderr=True)
    return rich_track(items, description, total, console=console) if console.is_terminal else items

"""Progress on stderr, so that stdout stays a tool's result; silent where nobody watches. Imports no torch."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar('T')

# The display, while there is one, and the streams past it. A terminal has room for one, so that tasks within tasks are
# lines of it.
_shown: list[tuple['Progress', tuple[TextIO, TextIO]]] = []


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass ``items`` on and show how many of ``total`` (default: their own length) have passed."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with counting(description, total) as count:
        for item in items:
            yield item
            count()


@contextmanager
def counting(description: str, total: int | None = None, *, redirects: bool = True) -> Iterator[Callable[[], None]]:
    """Show a task until the block ends, and yield a function that counts one more item of it.

    Args:
        description: What is done.
        total: Number of items; None if there are none to count.
        redirects: Show lines that are printed meanwhile above the display.
    """
    # of the processes of a run, one shows it
    if not _shown and (not sys.stderr.isatty() or os.environ.get('RANK', '0') != '0'):
        yield lambda: None
        return
    with _using_display(redirects) as display:
        task = display.add_task(description, total=total)
        try:
            yield lambda: display.advance(task)
        finally:
            display.remove_task(task)


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that a long step is under way, and for how long, until the block ends."""
    with counting(description):
        yield


@contextmanager
def starting() -> Iterator[None]:
    """Show that a command is about to work: the block imports torch and what else takes seconds."""
    # what is imported may keep the streams of that moment
    with counting('starting', redirects=False):
        yield


@contextmanager
def _using_display(redirects: bool) -> Iterator['Progress']:
    if _shown:
        yield _shown[0][0]
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    # a descriptor of its own: libraries that print too much have that of stderr closed for a while
    with os.fdopen(os.dup(sys.stderr.fileno()), 'w', encoding='utf-8') as stream:
        display = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            TaskProgressColumn(show_speed=True),  # a percentage, or nothing where there is no total
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
            # Lines that are printed meanwhile go above it; but rich would send a piped stdout to the terminal, too.
            redirect_stdout=redirects and sys.stdout.isatty(),
            redirect_stderr=redirects,
        )
        streams = sys.stdout, sys.stderr
        with display:
            _shown.append((display, streams))
            try:
                yield display
            finally:
                _shown.clear()


def _leave_display() -> None:
    """Write past it: in a process that is forked meanwhile its thread is not there, and may have left a lock behind."""
    if _shown:
        _, (sys.stdout, sys.stderr) = _shown.pop()


os.register_at_fork(after_in_child=_leave_display)

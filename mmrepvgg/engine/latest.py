"""The checkpoint of a work dir with which a training goes on: the latest one that is whole."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.reading import Checkpoint, CheckpointError, read_checkpoint
from .saving import INTERRUPTED, NOTE

_PATTERNS = {kind: re.compile(rf'{kind}_(\d+)\.pth') for kind in ('epoch', 'iter')}


@dataclass(frozen=True)
class Latest:
    """The search in a work dir.

    Attributes:
        checkpoint: The latest whole checkpoint, or None if there is none at all.
        skipped: Of each later one, why it was not taken.
    """

    checkpoint: Checkpoint | None
    skipped: tuple[str, ...]


def find_latest(work_dir: str | Path) -> Latest:
    """Find the whole checkpoint of the latest iteration. Broken ones are skipped.

    The files are those that mmengine's hook names by epoch or iteration, that of an interrupted training, and the one
    that the note ``last_checkpoint`` names. The note has an absolute path. If the folder was copied or moved, the
    file of that name beside the note is meant.

    Raises:
        CheckpointError: If there are checkpoints, and all of them are broken.
    """
    skipped: list[str] = []
    # of each row of files in falling order, the first whole one
    firsts = [found for row in _list_rows(Path(os.path.abspath(work_dir))) if (found := _read_first(row, skipped))]
    noted = _read_note(Path(os.path.abspath(work_dir)))
    if noted and not noted.exists():
        skipped.append(f'{noted}, which {NOTE} names, does not exist')
    if skipped and not firsts:
        raise CheckpointError(
            f'{work_dir} has no whole checkpoint to resume from: {"; ".join(skipped)}; move these files away to start '
            'anew'
        )
    latest = max(firsts, key=lambda found: (found.meta['iter'], found.meta['epoch']), default=None)
    return Latest(latest, tuple(skipped))


def _list_rows(folder: Path) -> Iterator[list[Path]]:
    noted = _read_note(folder)
    if noted and not any(_list_numbered(folder)) and not (folder / INTERRUPTED).exists():
        folder = noted.parent  # out_dir of the hook
    rows = [*_list_numbered(folder), [folder / INTERRUPTED] if (folder / INTERRUPTED).exists() else []]
    yield from filter(None, rows)
    if noted and noted.exists() and not any(noted in row for row in rows):
        yield [noted]


def _list_numbered(folder: Path) -> Iterator[list[Path]]:
    for pattern in _PATTERNS.values():
        numbers = {path: int(match[1]) for path in folder.glob('*.pth') if (match := pattern.fullmatch(path.name))}
        yield sorted(numbers, key=lambda path: -numbers[path])


def _read_note(folder: Path) -> Path | None:
    note = folder / NOTE
    text = note.read_text(errors='replace').strip() if note.is_file() else ''
    if not text.isprintable() or not text:
        return None
    if '://' in text:
        raise CheckpointError(f'{text}, which {note} names, is no file; fetch it, and give that to `resume`')
    beside = folder / Path(text).name
    return beside if beside.exists() else Path(text)


def _read_first(paths: list[Path], skipped: list[str]) -> Checkpoint | None:
    for path in paths:
        try:
            return read_state(path)
        except CheckpointError as error:
            skipped.append(str(error))
    return None


def read_state(path: str | Path) -> Checkpoint:
    """Read a checkpoint from which a training can go on.

    Raises:
        CheckpointError: If it can't be read, or holds no state of a training.
    """
    checkpoint = read_checkpoint(path)
    if not all(type(checkpoint.meta.get(name)) is int for name in ('epoch', 'iter')):
        raise CheckpointError(
            f'{path} holds no state of a training, so it can not be resumed; to start with its weights, set '
            '`load_from` of the config and leave out `resume`'
        )
    return checkpoint

"""The checkpoint of a work dir with which a training goes on: the latest one that is whole."""

import os
import re
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
    """Find the whole checkpoint with which a training goes on. Broken ones are skipped.

    It is the one that the note ``last_checkpoint`` names, or one that was written after it, or, without a note, that of
    the latest iteration. The note has an absolute path. If the folder was copied or moved, the file of that name beside
    the note is meant. Besides, files are known that mmengine's hook names by epoch or iteration, and that of an
    interrupted training. Later iterations of an earlier training in the folder do not count.

    Raises:
        CheckpointError: If there are checkpoints, and all of them are broken.
    """
    folder = Path(os.path.abspath(work_dir))
    skipped: list[str] = []
    noted = _read_note(folder)
    if noted and not noted.exists():
        skipped.append(f'{noted}, which {NOTE} names, does not exist')
        noted = None
    latest = noted and _read_first([noted], skipped)
    # of each row of files in falling order, the first whole one
    rows = [[path for path in row if not _is_earlier(path, noted)] for row in _list_rows(folder, noted)]
    others = [found for row in rows if (found := _read_first(row, skipped))]
    if latest:
        others = [each for each in others if _get_place(each) < _get_place(latest) or _is_newer(each.path, latest.path)]
    latest = max([*([latest] if latest else []), *others], key=_get_place, default=None)
    if skipped and not latest:
        raise CheckpointError(
            f'{work_dir} has no whole checkpoint to resume from: {"; ".join(skipped)}; move these files away to start '
            'anew'
        )
    return Latest(latest, tuple(skipped))


def _list_rows(folder: Path, noted: Path | None) -> list[list[Path]]:
    rows = _list_folder(folder)
    if noted and not any(rows):
        rows = _list_folder(noted.parent)  # out_dir of the hook
    return [[path for path in row if path != noted] for row in rows]


def _list_folder(folder: Path) -> list[list[Path]]:
    rows = [
        sorted((path for path in folder.glob('*.pth') if pattern.fullmatch(path.name)), key=_get_number, reverse=True)
        for pattern in _PATTERNS.values()
    ]
    return [*rows, [folder / INTERRUPTED] if (folder / INTERRUPTED).exists() else []]


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


def _is_earlier(path: Path, noted: Path | None) -> bool:
    """Whether the name says that a file is of a training before that of the note: of a later step, and older."""
    return (
        noted is not None
        and any(pattern.fullmatch(path.name) and pattern.fullmatch(noted.name) for pattern in _PATTERNS.values())
        and _get_number(path) > _get_number(noted)
        and not _is_newer(path, noted)
    )


def _is_newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def _get_number(path: Path) -> int:
    return int(path.stem.rpartition('_')[2])


def _get_place(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.meta['iter'], checkpoint.meta['epoch']


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

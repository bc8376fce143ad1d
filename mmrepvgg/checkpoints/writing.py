"""Writing files whole or not at all. Imports no torch."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .leftovers import clear_leftovers, name_temporary

# What the files of checkpoints end in: those of torch.save, and all that can be written.
TORCH_SUFFIXES = ('.pth', '.pt')
WRITABLE_SUFFIXES = (*TORCH_SUFFIXES, '.safetensors')


# The errors of a disk that takes no more, of a quota and of a limit for the size of files.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What is written to see whether the disk takes more.
_PROBE_SIZE = 1 << 20


class NoSpaceError(OSError):
    """A result does not fit on the disk. What stood in its place is as it was."""


def require_writable(*paths: str | Path | None, marker: str = '') -> None:
    """Say that a result can't be written before the work is done; None is no result.

    Args:
        *paths: Results.
        marker: What each result has at this place in it, if results are folders. Empty for files.

    Raises:
        IsADirectoryError: If a folder is in the place of a file.
        FileExistsError: If in the place of a folder is something else than an earlier result.
        PermissionError: If no file can be made in the folder of one.
    """
    for path in paths:
        if path is None:
            continue
        target = _find_target(path, marker)
        folder = next(parent for parent in target.parents if parent.exists())
        try:
            # files are written beside their destination; only this tells of all that can be in the way
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise PermissionError(
                f'{path} can not be written: no file can be made in {folder} ({error.strerror})'
            ) from error


@contextmanager
def replacing(path: str | Path, marker: str = '') -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; it takes ``path``'s place if the block ends without an error.

    Missing parent folders are made. A link is followed, not replaced. What writers that were killed have left in the
    folder is removed.

    Args:
        path: Result.
        marker: What the result has at this place in it, if it is a folder. A folder without it is never replaced.

    Raises:
        IsADirectoryError: If a folder is in the place of a file.
        FileExistsError: If in the place of a folder is something else than an earlier result.
        NoSpaceError: If the disk is full.
    """
    target = _find_target(path, marker)
    target.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(target.parent)
    # with the whole name at its end, from which formats of several files make the names of the others
    temporary = name_temporary(target)
    try:
        with naming_full_disk(path, target.parent):
            yield temporary
        if marker and target.exists():
            _exchange(temporary, target)
        else:
            os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming_full_disk(path: str | Path, folder: Path) -> Iterator[None]:
    """Turn an error of the block into a :class:`NoSpaceError` if the disk is full. Libraries have many for it.

    Args:
        path: What the block writes.
        folder: The folder of it, which exists.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, NoSpaceError) or not _is_full(error, folder):
            raise
        raise NoSpaceError(
            f'{path} can not be written: there is no space left for it in {folder}; make room, or give another place. '
            'What was there before is as it was'
        ) from error


def _is_full(error: BaseException | None, folder: Path) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_SIZE))
    except OSError as probe:
        return probe.errno in _FULL
    return False


def _find_target(path: str | Path, marker: str) -> Path:
    """The place of a result, links followed. What is there is something that the result can replace."""
    target = Path(os.path.realpath(path))
    if not marker and target.is_dir():
        raise IsADirectoryError(f'{path} is a folder; give the name of a file')
    # a link can lead to a folder of any name
    is_earlier = (target / marker).is_file() and target.suffix == Path(path).suffix
    if marker and target.exists() and not is_earlier:
        raise FileExistsError(
            f'{path} exists and is no {Path(path).suffix} folder with {marker} in it; move it away or give another name'
        )
    return target


def _exchange(temporary: Path, target: Path) -> None:
    """Put a folder in the place of a folder, and remove the old one.

    No system call that Python has replaces a folder that is not empty. Between two renamings there is nothing at
    ``target``; a process that is killed there leaves both folders beside it, whole.
    """
    old = target.with_name(f'{temporary.name}.old')
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)

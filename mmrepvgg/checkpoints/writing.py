"""Writing files whole or not at all. Imports no torch."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What the files of checkpoints end in: those of torch.save, and all that can be written.
TORCH_SUFFIXES = ('.pth', '.pt')
WRITABLE_SUFFIXES = (*TORCH_SUFFIXES, '.safetensors')


def require_writable(*paths: str | Path | None) -> None:
    """Say that a result can't be written before the work is done; None is no result.

    Raises:
        IsADirectoryError: If one is a folder.
        PermissionError: If no file can be made in the folder of one.
    """
    for path in paths:
        if path is None:
            continue
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise IsADirectoryError(f'{path} is a folder; give the name of a file')
        folder = next(parent for parent in target.parents if parent.exists())
        try:
            # files are written beside their destination; only this tells of all that can be in the way
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise PermissionError(
                f'{path} can not be written: no file can be made in {folder} ({error.strerror})'
            ) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; it takes ``path``'s place if the block ends without an error.

    Missing parent folders are made. A link is followed, not replaced.

    Raises:
        IsADirectoryError: If ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f'{path} is a folder; give the name of a file')
    target.parent.mkdir(parents=True, exist_ok=True)
    # with the whole name at its end, from which formats of several files make the names of the others
    temporary = target.with_name(f'.{os.getpid()}.{target.name}')
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)

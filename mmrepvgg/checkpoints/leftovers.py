"""Names of temporary files, and what killed writers leave behind. Imports no torch."""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import time
from pathlib import Path

# .mmrepvgg-MACHINE-PROCESS.NAME, and with .old behind it a folder that was about to be replaced
_TEMPORARY = re.compile(r'\.mmrepvgg-([0-9a-f]{8})-(\d+)\.(.+?)(\.old)?', re.DOTALL)
# A process of another machine can't be asked whether it lives. What it writes is not untouched for a day.
_FOREIGN_SECONDS = 86_400


def name_temporary(target: Path) -> Path:
    """A name beside ``target`` that only this process uses, with the whole name of ``target`` at its end."""
    return target.with_name(f'.mmrepvgg-{_name_machine()}-{os.getpid()}.{target.name}')


def clear_leftovers(folder: Path) -> None:
    """Remove what writers that are dead have left in a folder. It is looked through once in the life of a process."""
    _clear(folder, os.getpid())


@functools.lru_cache(maxsize=1024)
def _clear(folder: Path, process: int) -> None:
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and _is_dead(path, match[1], int(match[2])):
            # what another one has removed meanwhile, or may not be removed, is no error of this writer
            with contextlib.suppress(OSError):
                _remove(path, path.with_name(match[3]) if match[4] else None)


def _remove(path: Path, replaced: Path | None) -> None:
    if replaced is not None and not os.path.lexists(replaced):
        path.rename(replaced)  # its writer was killed before the new folder stood in its place
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_dead(path: Path, machine: str, process: int) -> bool:
    if machine != _name_machine():
        try:
            return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS
        except OSError:
            return False
    if process == os.getpid():
        return True  # of an earlier process with this number: this one writes here for the first time
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's
    return False


@functools.cache
def _name_machine() -> str:
    """Eight characters for this machine, or for the container: in another one the same number is another process."""
    try:
        space = os.readlink('/proc/self/ns/pid')
    except OSError:
        space = ''
    return hashlib.sha256(f'{platform.node()} {space}'.encode()).hexdigest()[:8]

"""One training at a time in a work dir."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mmengine.logging import print_log

_LOCK = '.training.lock'


class OccupiedError(RuntimeError):
    """Another training writes into the work dir."""


@contextmanager
def occupying(work_dir: str | Path) -> Iterator[None]:
    """Keep other trainings out of ``work_dir``. The system ends the lock with the process, however that ends.

    It is a record lock, which network file systems know, too, and which the processes that read images do not inherit.
    Where a file system has none, trainings are not kept apart.

    Raises:
        OccupiedError: If another training has the folder.
    """
    path = Path(work_dir, _LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a+') as file:
        _lock(file, work_dir)
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        yield


def _lock(file: TextIO, work_dir: str | Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise OccupiedError(
            f'another training writes into {work_dir} ({file.read().strip() or "unknown process"}); wait for its end, '
            'or give another `work_dir`'
        ) from None
    except OSError as error:
        print_log(f'{work_dir} can not be locked ({error.strerror}): start no second training in it', 'current')

"""ExecuTorch: the versions that fit, its imports and its log."""

import importlib.metadata
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from .format import MissingPackageError
from .quiet import quiet

# Each version of ExecuTorch is compiled against one version of torch. With torch 2.12, ExecuTorch 1.4 can't be
# imported, 1.5 fails when a file is run, and 1.2 does not verify files.
VERSIONS = {'executorch': '1.3', 'torch': '2.12'}

# [threadpool.cpp:65] Resetting threadpool to 1 threads.
_LOG_LINE = re.compile(r'\[\w+\.(cpp|h):\d+\] ')


def require_fitting_versions() -> None:
    """Check that the installed ExecuTorch fits the installed torch, without importing them.

    Raises:
        MissingPackageError: If they do not fit. The message says which versions do.
    """
    found = {package: importlib.metadata.version(package) for package in VERSIONS}
    if not all(found[package].startswith(f'{version}.') for package, version in VERSIONS.items()):
        wanted, got = (
            ' with '.join(f'{name} {version}' for name, version in pairs.items()) for pairs in (VERSIONS, found)
        )
        raise MissingPackageError(
            f'ExecuTorch files need {wanted}, since each version of one fits one of the other, got {got}: '
            'pip install "mmrepvgg[executorch]"'
        )


@contextmanager
def silencing() -> Iterator[None]:
    """Silence ExecuTorch, when it is imported too, and take back the log handler that it gives the whole process."""
    handlers = list(logging.root.handlers)
    try:
        with quiet():
            yield
    finally:
        logging.root.handlers[:] = handlers


@contextmanager
def catching_log() -> Iterator[list[str]]:
    """Catch the log of the runtime, which goes to stderr, partly past Python, and can't be turned off.

    Yields:
        list[str]: Its lines, when the block has ended. Lines of others are written to stderr then.
    """
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile('w+', errors='replace') as file:
        descriptor = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            with redirect_stderr(file):
                yield lines
        finally:
            os.dup2(descriptor, 2)
            os.close(descriptor)
            file.seek(0)
            for line in file:
                if _LOG_LINE.match(line):
                    lines.append(line.strip())
                else:
                    sys.stderr.write(line)

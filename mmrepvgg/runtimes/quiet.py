"""Silence for exporters, which print much about themselves. Their errors are exceptions, and stay."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, log messages and output to stdout."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, 'w') as sink, contextlib.redirect_stdout(sink):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Suppress what C++ libraries print to stderr, for those that have no option for it.

    Python's own stderr goes with it, so the block must hold nothing but the calls of the library.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, 'w') as sink, contextlib.redirect_stderr(sink):
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)

"""Silence for exporters, which print much about themselves. Their errors are exceptions, and stay."""

import contextlib
import logging
import os
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

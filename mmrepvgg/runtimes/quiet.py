"""Exporters tell of their own workings at length; their errors come as exceptions."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, log messages and what is printed to stdout."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, 'w') as sink, contextlib.redirect_stdout(sink):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(previous)

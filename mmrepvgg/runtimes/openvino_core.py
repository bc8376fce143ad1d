"""OpenVINO without its telemetry, and with one ``Core`` that compiles models for the whole process.

OpenVINO and NNCF report to their makers over the network unless told not to; here they are told.

Each ``Core`` that compiles a model for the CPU sets up a stack for the process's signal handlers, and puts its
predecessor's back when it goes. If that one went before, the handlers are left with memory that is no longer there, and
the next signal that Python handles (the end of a data loader's worker, say) kills the process without a word (seen with
OpenVINO 2026.4.1). So there is one, and it stays.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def import_openvino() -> ModuleType:
    """Import ``openvino`` without its telemetry: it and NNCF do without that package where it is missing.

    Nothing changes for a process that imported it before.
    """
    if 'openvino_telemetry' not in sys.modules:
        sys.modules['openvino_telemetry'] = None  # type: ignore[assignment]  # the import system's "not there"
    import openvino

    return openvino


@functools.cache
def get_core() -> Any:
    """The process's one ``openvino.Core``."""
    return import_openvino().Core()


@contextmanager
def compiling_by_one_core() -> Iterator[None]:
    """Let a library that makes a ``Core`` for each model it compiles, as NNCF does, compile by :func:`get_core`."""
    core = get_core()
    cores: Any = type(core)
    compile_model = cores.compile_model
    cores.compile_model = lambda self, *args, **kwargs: compile_model(core, *args, **kwargs)
    try:
        yield
    finally:
        cores.compile_model = compile_model

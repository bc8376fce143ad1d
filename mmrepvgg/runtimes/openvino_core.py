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
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .format import ENTRY

if TYPE_CHECKING:
    from .metadata import ExportMetadata


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


def save_model(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
    """Write an ``openvino.Model`` as an .xml and a .bin, with its metadata and the hash of the .bin in the .xml."""
    from ..checkpoints.reading import hash_file

    openvino = import_openvino()
    if metadata.batch_size is not None:
        model.reshape([metadata.batch_size, *list(model.inputs[0].partial_shape)[1:]])
    model.inputs[0].tensor.set_names({'images'})
    model.outputs[0].tensor.set_names({'scores'})
    compress = metadata.precision == 'fp16'
    model.set_rt_info(metadata.to_json(), [ENTRY, 'metadata'])
    openvino.save_model(model, path, compress_to_fp16=compress)
    model.set_rt_info(hash_file(path.with_suffix('.bin')), [ENTRY, 'weights_sha256'])
    openvino.save_model(model, path, compress_to_fp16=compress)

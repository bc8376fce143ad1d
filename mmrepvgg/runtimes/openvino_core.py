"""OpenVINO without telemetry, and with one ``Core`` for the whole process.

OpenVINO and NNCF report to their makers over the network by default. This module prevents it.

Each ``Core`` that compiles a model for the CPU sets a stack for the signal handlers of the process, and restores the
former stack when it is deleted. If the ``Core`` of that former stack was deleted first, the handlers get freed memory.
The next signal that Python handles (for example the end of a data loader's worker) then kills the process without a
message (seen with OpenVINO 2026.4.1). So there is only one ``Core``, and it is never deleted.
"""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..checkpoints.seals import OPEN_SEAL, SEAL_ENTRY, close_seal
from .format import ENTRY

if TYPE_CHECKING:
    from .metadata import ExportMetadata


def import_openvino() -> ModuleType:
    """Import ``openvino`` without telemetry, which OpenVINO and NNCF leave out where its package is missing.

    A process that has imported the telemetry before keeps it.
    """
    if 'openvino_telemetry' not in sys.modules:
        sys.modules['openvino_telemetry'] = None  # type: ignore[assignment]  # the import system's "not there"
    import openvino

    return openvino


@functools.cache
def get_core() -> Any:
    """The only ``openvino.Core`` of the process."""
    return import_openvino().Core()


@contextmanager
def compiling_by_one_core() -> Iterator[None]:
    """Make libraries such as NNCF, which create a ``Core`` for each model, compile with :func:`get_core`."""
    core = get_core()
    cores: Any = type(core)
    compile_model = cores.compile_model
    cores.compile_model = lambda self, *args, **kwargs: compile_model(core, *args, **kwargs)
    try:
        yield
    finally:
        cores.compile_model = compile_model


def save_model(model: Any, path: Path, metadata: 'ExportMetadata') -> None:
    """Write an ``openvino.Model`` as an .xml and a .bin, with its metadata and the hashes of both in the .xml."""
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
    model.set_rt_info(OPEN_SEAL, [ENTRY, SEAL_ENTRY])
    openvino.save_model(model, path, compress_to_fp16=compress)
    path.write_bytes(close_seal(path.read_bytes()))

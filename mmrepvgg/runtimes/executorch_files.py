"""The writing and checking of ExecuTorch's programs."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.seals import OPEN_SEAL, SEAL_ENTRY, check_seal, close_seal
from .executorch_core import silencing
from .format import ENTRY
from .quiet import quiet

if TYPE_CHECKING:
    from torch import nn

    from .metadata import ExportMetadata

# ExecuTorch plans the memory of a file before it runs, so every free axis needs a largest size. These cost almost
# nothing: only what XNNPACK does not compute, such as preprocessing inside, gets memory for the largest input.
MAX_BATCH = 32
MAX_BATCH_OF_FREE_SIZE = 4
MAX_SIDE = 1024

# A program starts with the offset of its first table and the version of its layout.
_MAGIC = re.compile(rb'.{4}ET\d\d', re.DOTALL)


def export_program(network: 'nn.Module', metadata: 'ExportMetadata') -> Any:
    """Trace a network by ``torch.export``, with the largest size of each free axis."""
    import torch

    from .network import list_free_axes, make_example

    dynamic = torch.export.Dim.DYNAMIC
    limits = {
        0: MAX_BATCH_OF_FREE_SIZE if metadata.dynamic_size else MAX_BATCH,
        2: max(MAX_SIDE, metadata.input_size[0]),
        3: max(MAX_SIDE, metadata.input_size[1]),
    }
    shapes = {axis: dynamic(max=limits[axis]) for axis in list_free_axes(metadata)}
    with quiet(), _asking_no_backend():
        return torch.export.export(network, (make_example(metadata),), dynamic_shapes=(shapes,))


def save_program(program: Any, path: Path, metadata: 'ExportMetadata') -> None:
    """Lower an exported program to XNNPACK, and write it with its metadata and the hash of the file."""
    with silencing():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
        from executorch.exir.passes import MemoryPlanningPass

    config = ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False))
    entries = {ENTRY: metadata.to_json(), SEAL_ENTRY: OPEN_SEAL}
    with silencing(), _asking_no_backend(), _naming_flatc():
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=entries)
        content = lowered.to_executorch(config).buffer
    path.write_bytes(close_seal(content))


@contextmanager
def _asking_no_backend() -> Iterator[None]:
    """Keep torch from asking whether oneDNN and NNPACK would take a convolution.

    They take other ones from 16 images on. To ask is to limit a free batch size to 15.
    """
    import torch

    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield


@contextmanager
def _naming_flatc() -> Iterator[None]:
    """Name the compiler of ExecuTorch's package, which looks for one on the path of the shell only."""
    import executorch

    name = 'FLATC_EXECUTABLE'
    before = os.environ.get(name)
    os.environ[name] = before or os.path.join(next(iter(executorch.__path__)), 'data', 'bin', 'flatc')
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def read_program(path: Path) -> bytes:
    """Read a program that :func:`save_program` wrote. The runtime gets it only if no bit of it has changed.

    Raises:
        CheckpointError: If it is damaged, or no program.
        ValueError: If it was written by others.
    """
    from ..checkpoints.reading import CheckpointError
    from .metadata import ExportMetadata

    content = path.read_bytes()
    if not _MAGIC.match(content):
        raise CheckpointError(f'{path} is no ExecuTorch program (it starts with {content[:8]!r})')
    is_whole = check_seal(content)
    if is_whole:
        return content
    if is_whole is False or len(content) < _read_size(content):
        raise CheckpointError(f'{path} is damaged or incomplete: it is not what was written; export again')
    ExportMetadata.from_json(None, path)
    raise AssertionError('no metadata is an error')


def _read_size(content: bytes) -> int:
    """The size of a program in bytes, by its header ``eh00``: the size of its tables, and where its weights are."""
    if content[8:12] != b'eh00':
        return 0
    tables, start, weights = (int.from_bytes(content[place : place + 8], 'little') for place in (16, 24, 32))
    return max(tables, start + weights)

"""ExecuTorch's files, for phones and boards. XNNPACK computes."""

from pathlib import Path
from typing import TYPE_CHECKING

from .executorch_core import require_fitting_versions
from .executorch_files import export_program, save_program
from .executorch_int8 import XnnpackQuantizer
from .format import GraphFormat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata


class ExecutorchFormat(GraphFormat):
    """A program that XNNPACK computes. The number of threads is that of all such programs of the process.

    A file of fp16 computes in float16. The weights of its convolutions are stored as float32.
    """

    name = 'ExecuTorch'
    suffixes = ('.pte',)
    # no bf16: XNNPACK has no such convolutions, and those of ExecuTorch itself are slow
    precisions = ('fp32', 'fp16')
    packages = ('executorch',)
    extra = 'executorch'
    runtime = 'executorch'
    runtime_title = 'ExecuTorch'
    computes = ('fp32', 'fp16')
    quantizers = (XnnpackQuantizer(),)

    def require_packages(self, *, write: bool) -> None:
        super().require_packages(write=write)
        require_fitting_versions()

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        save_program(export_program(network, metadata), path, metadata)

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        from .executorch_program import Program, Threads
        from .exported_model import ExportedModel

        if num_threads is not None:
            Threads.set(num_threads)
        program = Program(path)
        return ExportedModel(path, program.run, program.metadata)


EXECUTORCH = ExecutorchFormat()

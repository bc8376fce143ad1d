"""Files of ``torch.export.save``, run by PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

from .format import ENTRY, GraphFormat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata


class TorchExportFormat(GraphFormat):
    """A program. Before torch reads a file, it is checked and must hold nothing but a plain network."""

    name = 'torch.export'
    suffixes = ('.pt2',)
    runtime = 'torch-export'
    runtime_title = 'torch.export'

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        import torch

        from .network import list_free_axes
        from .quiet import quiet

        dynamic = dict.fromkeys(list_free_axes(metadata), torch.export.Dim.DYNAMIC)
        with quiet():
            program = torch.export.export(network, (example,), dynamic_shapes=(dynamic,))
            program.example_inputs = None  # they would be in the file too
            # Python code, which would refuse sizes whose feature maps have 1 pixel; the operators take them
            program._guards_code = []
            for node in program.graph.nodes:
                node.meta.pop('stack_trace', None)  # it holds paths of this machine
            torch.export.save(program, path, extra_files={f'{ENTRY}.json': metadata.to_json()})

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        import torch

        from ..checkpoints.reading import CheckpointError
        from ..checkpoints.torch_export_files import read_torch_export
        from .exported_model import ExportedModel, set_torch_threads
        from .metadata import ExportMetadata
        from .quiet import quiet

        set_torch_threads(num_threads)
        checked = read_torch_export(path)
        extra = {f'{ENTRY}.json': ''}
        try:
            with quiet():
                program = torch.export.load(checked, extra_files=extra)
        except Exception as error:  # torch raises many kinds of error here
            raise CheckpointError(f'{path} is damaged, or another version of torch wrote it: {error}') from error
        return ExportedModel(path, program.module(), ExportMetadata.from_json(extra[f'{ENTRY}.json'], path))


TORCH_EXPORT = TorchExportFormat()

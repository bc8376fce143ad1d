"""TorchScript files, run by PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

from .format import ENTRY, GraphFormat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata


class TorchScriptFormat(GraphFormat):
    """A traced program, for any batch size. Load only files that you trust."""

    name = 'TorchScript'
    suffixes = ('.ts', '.torchscript')
    options = GraphFormat.options - {'dynamic_batch'}
    runtime = 'torchscript'
    runtime_title = 'TorchScript'

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        from .scripts import write_script

        write_script(network, example, path, {f'{ENTRY}.json': metadata.to_json()})

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        import torch

        from ..checkpoints.reading import CheckpointError, as_checkpoint_errors
        from ..checkpoints.zips import check_zip
        from .exported_model import ExportedModel, set_torch_threads
        from .metadata import ExportMetadata

        set_torch_threads(num_threads)
        with as_checkpoint_errors(path):
            check_zip(path)
        extra = {f'{ENTRY}.json': ''}
        try:
            module = torch.jit.load(path, map_location='cpu', _extra_files=extra)
        except RuntimeError as error:
            raise CheckpointError(
                f'{path} is not a TorchScript file, or is damaged: {str(error).splitlines()[0]}'
            ) from error
        return ExportedModel(path, module.eval(), ExportMetadata.from_json(extra[f'{ENTRY}.json'], path))


TORCHSCRIPT = TorchScriptFormat()

"""Files of ``torch.export.save``, run by PyTorch."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .format import ENTRY, GraphFormat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata

# Operators with weights.
_LAYERS = ('aten.conv2d.default', 'aten.conv2d.padding', 'aten.linear.default')


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

        buffer = io.BytesIO()
        dynamic = dict.fromkeys(list_free_axes(metadata), torch.export.Dim.DYNAMIC)
        with quiet():
            program = torch.export.export(network, (example,), dynamic_shapes=(dynamic,))
            program.example_inputs = None  # they would be in the file too
            # Python code, which would refuse sizes whose feature maps have 1 pixel; the operators take them
            program._guards_code = []
            for node in program.graph.nodes:
                node.meta.pop('stack_trace', None)  # it holds paths of this machine
            # not to the file: if the disk is full, torch ends the process
            torch.export.save(program, buffer, extra_files={f'{ENTRY}.json': metadata.to_json()})
        path.write_bytes(buffer.getbuffer())

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        from .exported_model import ExportedModel, set_torch_threads

        set_torch_threads(num_threads)
        program, metadata = self._read(path)
        return ExportedModel(path, program.module(), metadata)

    def load_layers(self, path: Path) -> 'Callable[[Tensor], dict[str, Tensor]]':
        import torch

        from .quantizer import find_layer

        program = self._read(path)[0].module()

        def run(x: 'Tensor') -> 'dict[str, Tensor]':
            outputs: dict[str, Tensor] = {}

            class Recorder(torch.fx.Interpreter):
                def run_node(self, node: torch.fx.Node) -> Any:
                    output = super().run_node(node)
                    if str(node.target) in _LAYERS:
                        weight = str(node.all_input_nodes[1].target)
                        outputs[find_layer(weight)] = output.clone()
                    return output

            with torch.no_grad():
                Recorder(program).run(x)
            return outputs

        return run

    @staticmethod
    def _read(path: Path) -> 'tuple[Any, ExportMetadata]':
        import torch

        from ..checkpoints.reading import CheckpointError
        from ..checkpoints.torch_export_files import read_torch_export
        from .metadata import ExportMetadata
        from .quiet import quiet

        checked = read_torch_export(path)
        extra = {f'{ENTRY}.json': ''}
        try:
            with quiet():
                program = torch.export.load(checked, extra_files=extra)
        except Exception as error:  # torch raises many kinds of error here
            raise CheckpointError(f'{path} is damaged, or another version of torch wrote it: {error}') from error
        return program, ExportMetadata.from_json(extra[f'{ENTRY}.json'], path)


TORCH_EXPORT = TorchExportFormat()

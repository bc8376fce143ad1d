"""ONNX files, run by ONNX Runtime."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cpu import has_vnni
from .format import ENTRY, GraphFormat, require_packages
from .onnx_files import check_onnx, save_proto
from .onnx_int8 import OnnxRuntimeQuantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata

# PyTorch's exporter writes this version of the operators and later ones.
MIN_EXPORTED_OPSET = 18
# The operators of this project's networks mean the same from this version on, in float32 and float16.
MIN_OPSET = 11


class OnnxFormat(GraphFormat):
    """A file that holds weights and metadata. ONNX Runtime runs it."""

    name = 'ONNX'
    suffixes = ('.onnx',)
    # no bf16: ONNX Runtime has no bfloat16 convolution on CPUs, so such a file could not be verified
    precisions = ('fp32', 'fp16')
    options = GraphFormat.options | {'opset'}
    packages = ('onnxruntime',)
    writing_packages = ('onnx', 'onnxscript')
    extra = 'onnx'
    runtime = 'onnxruntime'
    runtime_title = 'ONNX Runtime'
    computes = ('fp32',)
    quantizers = (OnnxRuntimeQuantizer(),)

    def check(self, *, opset: int | None = None, **options: object) -> None:
        super().check(opset=opset, **options)  # type: ignore[arg-type]
        if opset is not None and opset < MIN_OPSET:
            raise ValueError(f'`opset` must be at least {MIN_OPSET}, got {opset}')

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        import torch

        from .network import ExportError, list_free_axes
        from .onnx_opsets import lower_opset
        from .quiet import quiet

        asked = None if opset is None else max(opset, MIN_EXPORTED_OPSET)
        dynamic = dict.fromkeys(list_free_axes(metadata), torch.export.Dim.DYNAMIC)
        with quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=['images'],
                output_names=['scores'],
                dynamic_shapes=(dynamic,),
                opset_version=asked,
                verbose=False,
            )
        assert program is not None
        written = program.model.opset_imports['']
        if asked is not None and written != asked:
            raise ExportError(
                f'`opset` must be a version that the installed exporter can write, got {opset}; it wrote {written}'
            )
        for node in program.model.graph:
            _name_weight(node)
            node.metadata_props.clear()  # they hold paths of this machine
        if opset is not None and opset < MIN_EXPORTED_OPSET:
            model = lower_opset(program.model_proto, opset)
        else:
            # no arch reaches protobuf's limit of 2 GB, so the weights can be in the same file
            model = program.model_proto
        save_proto(model, path, metadata)

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        import torch

        from .exported_model import ExportedModel
        from .metadata import ExportMetadata

        check_onnx(path)
        session = self._open(path, path, num_threads)
        metadata = ExportMetadata.from_json(session.get_modelmeta().custom_metadata_map.get(ENTRY), path)
        name = session.get_inputs()[0].name

        def run(x: 'Tensor') -> 'Tensor':
            return torch.from_numpy(session.run(None, {name: x.cpu().numpy()})[0]).to(x.device)

        return ExportedModel(path, run, metadata)

    def load_layers(self, path: Path) -> 'Callable[[Tensor], dict[str, Tensor]]':
        require_packages(f'the layers of {self.name} files', ('onnx',), self.extra)
        import onnx
        import torch

        from .onnx_int8 import find_outputs

        check_onnx(path)
        model = onnx.load(path)
        outputs = find_outputs(model.graph)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in outputs.values())
        session = self._open(model.SerializeToString(), path)
        name = session.get_inputs()[0].name

        def run(x: 'Tensor') -> 'dict[str, Tensor]':
            values = session.run(list(outputs.values()), {name: x.cpu().numpy()})
            return {layer: torch.from_numpy(value) for layer, value in zip(outputs, values, strict=True)}

        return run

    @staticmethod
    def _open(model: 'Path | bytes', path: Path, num_threads: int | None = None) -> Any:
        import onnxruntime

        from ..checkpoints.reading import CheckpointError

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised, too
        # The fastest int8 kernels saturate on CPUs without VNNI instructions, so that results differ between machines.
        # On CPUs with VNNI they are exact, and 3 to 4 times as fast as the kernels of this option.
        options.add_session_config_entry('session.x64quantprecision', '0' if has_vnni() else '1')
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        try:
            return onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise CheckpointError(f'ONNX Runtime can not load {path}: {error}') from error


def _name_weight(node: Any) -> None:
    """Name the weight of a linear layer on tokens after the layer: the exporter transposes it, and its name is lost."""
    if node.op_type != 'MatMul' or not node.inputs[1].is_initializer():
        return
    scopes: list[str] = ast.literal_eval(node.metadata_props.get('pkg.torch.onnx.name_scopes', '[]'))
    path, function = scopes[-2:] if len(scopes) > 1 else ('', '')
    weight, name = node.inputs[1], f'{path}.weight'
    if function.startswith('linear') and name not in node.graph.initializers:
        weight.name = name


ONNX = OnnxFormat()

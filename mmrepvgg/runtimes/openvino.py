"""OpenVINO's files: an .xml and the .bin with its weights."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.seals import SEAL_ENTRY, check_seal
from .format import ENTRY, GraphFormat
from .openvino_int8 import NncfQuantizer, OnnxRuntimeForOpenvino

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata

# The entry of the .xml with the SHA-256 of its .bin.
_WEIGHTS = re.compile(rb'<weights_sha256 value="([0-9a-f]{64})"')


class OpenvinoFormat(GraphFormat):
    """An .xml file and a .bin file. They are replaced one after the other, so the .xml has the SHA-256 of the .bin.

    For fp16 the weights in the file are float16. For bf16 the runtime is asked to compute in bfloat16.
    """

    name = 'OpenVINO'
    suffixes = ('.xml',)
    packages = ('openvino',)
    extra = 'openvino'
    runtime = 'openvino'
    runtime_title = 'OpenVINO'
    computes = ('fp32', 'bf16')
    network_precision = 'fp32'  # OpenVINO itself changes the weights to fp16, and computes in bf16
    quantizers = (NncfQuantizer(), OnnxRuntimeForOpenvino())

    def list_files(self, path: Path) -> tuple[Path, ...]:
        return path, path.with_suffix('.bin')

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        from .network import list_free_axes
        from .openvino_core import import_openvino, save_model
        from .quiet import quiet

        openvino = import_openvino()
        free = list_free_axes(metadata)
        shape = openvino.PartialShape([-1 if axis in free else size for axis, size in enumerate(example.shape)])
        with quiet():
            model = openvino.convert_model(network, example_input=example, input=[shape])
        save_model(model, path, metadata)

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        import torch

        from .exported_model import ExportedModel
        from .openvino_core import import_openvino

        model, metadata = self._read(path)
        compiled = self._compile(model, metadata, num_threads)
        is_bf16 = compiled.get_property('INFERENCE_PRECISION_HINT') == import_openvino().Type.bf16
        request = compiled.create_infer_request()

        def run(x: 'Tensor') -> 'Tensor':
            # the next call overwrites the memory of this output
            scores = request.infer({0: x.cpu().contiguous().numpy()}, share_inputs=True)[0]
            return torch.from_numpy(scores.copy()).to(x.device)

        computes_in = 'int8' if metadata.precision == 'int8' else 'bf16' if is_bf16 else 'fp32'
        return ExportedModel(path, run, metadata, computes_in=computes_in)

    def load_layers(self, path: Path) -> 'Callable[[Tensor], dict[str, Tensor]]':
        import torch

        from .openvino_int8 import find_output, iterate_layers

        model, metadata = self._read(path)
        outputs = {name: find_output(op) for name, op in iterate_layers(model)}
        # the last one may give the scores
        (scores,) = (result.input_value(0) for result in model.get_results())
        names = {layer: 'scores' if output == scores else layer for layer, output in outputs.items()}
        for name, output in zip(names.values(), outputs.values(), strict=True):
            output.tensor.add_names({name})
        model.add_outputs([output for output in outputs.values() if output != scores])
        request = self._compile(model, metadata, None).create_infer_request()

        def run(x: 'Tensor') -> 'dict[str, Tensor]':
            results = request.infer({0: x.cpu().contiguous().numpy()})
            return {layer: torch.from_numpy(results[name].copy()) for layer, name in names.items()}

        return run

    @staticmethod
    def _read(path: Path) -> 'tuple[Any, ExportMetadata]':
        import numpy as np

        from ..checkpoints.reading import CheckpointError, hash_file
        from .metadata import ExportMetadata
        from .openvino_core import get_core

        weights = path.with_suffix('.bin')
        if not weights.is_file():
            raise FileNotFoundError(
                f'{weights} does not exist; an OpenVINO model is two files, {path.name} and {weights.name}'
            )
        # checked before OpenVINO reads the model, because its messages do not explain a wrong .bin
        content = path.read_bytes()
        if (match := _WEIGHTS.search(content)) and match[1].decode() != hash_file(weights):
            raise CheckpointError(f'{weights} is not the file that was written with {path}; export again')
        if SEAL_ENTRY.encode() in content and not check_seal(content):
            raise CheckpointError(f'{path} is damaged, or was changed after it was written; export again')
        try:
            model = get_core().read_model(path)
        except RuntimeError as error:
            raise CheckpointError(f'OpenVINO can not load {path}: {error}') from error
        has_record = model.has_rt_info([ENTRY, 'metadata'])
        record = model.get_rt_info([ENTRY, 'metadata']).astype(str) if has_record else None
        metadata = ExportMetadata.from_json(record, path)
        if match is None:
            raise CheckpointError(f'{path} does not name the SHA-256 of its .bin; export again')
        for op in model.get_ops():
            # OpenVINO computes on: for its ReLU NaN is 0
            is_number = op.get_type_name() == 'Constant' and op.get_element_type().is_real()
            if is_number and not np.isfinite(op.data).all():
                name = op.get_friendly_name()
                raise CheckpointError(f'{path}: {name} has values that are NaN or infinite; export again')
        return model, metadata

    @staticmethod
    def _compile(model: Any, metadata: 'ExportMetadata', num_threads: int | None) -> Any:
        from .openvino_core import get_core

        # without this hint OpenVINO computes every model in bfloat16 on CPUs that have it
        hints: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': 'bf16' if metadata.precision == 'bf16' else 'f32',
            'PERFORMANCE_HINT': 'LATENCY',
        }
        if num_threads is not None:
            hints['INFERENCE_NUM_THREADS'] = num_threads
        return get_core().compile_model(model, 'CPU', hints)


OPENVINO = OpenvinoFormat()

"""LiteRT files, the former TensorFlow Lite."""

from pathlib import Path
from typing import TYPE_CHECKING

from .format import GraphFormat
from .litert_int8 import LitertQuantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata


class LitertFormat(GraphFormat):
    """A file that holds weights and metadata. LiteRT runs it; a far larger package writes it.

    In fp16 the file has float16 weights, and LiteRT computes in float32.
    """

    name = 'LiteRT'
    suffixes = ('.tflite',)
    precisions = ('fp32', 'fp16')
    packages = ('ai_edge_litert',)
    writing_packages = ('litert_torch', 'ai_edge_quantizer')
    extra = 'litert'
    writing_extra = 'litert-export'
    runtime = 'litert'
    runtime_title = 'LiteRT'
    computes = ('fp32',)
    network_precision = 'fp32'
    quantizers = (LitertQuantizer(),)

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        from .litert_graph import iterate_operators, list_layers, name_tensors, parse_model, save_model, set_batch
        from .litert_int8 import cast_weights
        from .network import ExportError
        from .quiet import quiet, quiet_stderr

        with quiet(), quiet_stderr():
            import litert_torch

            # not to a file: if the disk is full, the process ends without a word
            content = litert_torch.convert(network, (example,)).model_content()
        model = parse_model(bytearray(content))
        name_tensors(model, list_layers(network, example))
        if metadata.dynamic_size and any(kind == 'RESHAPE' for _, kind in iterate_operators(model)):
            raise ExportError(
                'a LiteRT file of this network must have a fixed height and width, because its graph has a '
                'reshape to a fixed size; leave out `dynamic_size`'
            )
        set_batch(model, metadata.batch_size)
        if metadata.precision == 'fp16':
            model = cast_weights(model)
        save_model(model, path, metadata)

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        import torch

        from ..checkpoints.reading import CheckpointError
        from .exported_model import ExportedModel
        from .litert_graph import read_metadata
        from .metadata import ExportMetadata
        from .quiet import quiet_stderr

        metadata = ExportMetadata.from_json(read_metadata(path.read_bytes(), path), path)
        try:
            with quiet_stderr():
                from ai_edge_litert.interpreter import Interpreter

                interpreter = Interpreter(str(path), num_threads=num_threads or torch.get_num_threads())
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f'LiteRT can not load {path}: {error}') from error
        (source,), (destination,) = interpreter.get_input_details(), interpreter.get_output_details()
        shape = tuple(source['shape'])

        def run(x: 'Tensor') -> 'Tensor':
            nonlocal shape
            if not len(x):
                return x.new_zeros(0, metadata.num_classes, dtype=torch.float32)
            if x.shape != shape:
                interpreter.resize_tensor_input(source['index'], list(x.shape))
                interpreter.allocate_tensors()
                shape = tuple(x.shape)
            interpreter.set_tensor(source['index'], x.cpu().contiguous().numpy())
            interpreter.invoke()
            return torch.from_numpy(interpreter.get_tensor(destination['index'])).to(x.device)

        return ExportedModel(path, run, metadata, computes_in='int8' if metadata.precision == 'int8' else 'fp32')


LITERT = LitertFormat()

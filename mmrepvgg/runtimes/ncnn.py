"""ncnn's files: a .param with the graph, and a .bin with its weights."""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .format import GraphFormat
from .ncnn_int8 import NcnnQuantizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata
    from .ncnn_files import Layer

INPUT, OUTPUT = 'images', 'scores'


class NcnnFormat(GraphFormat):
    """A .param file and a .bin file, for phones and small CPUs.

    An ncnn network takes one image at a time, of any height and width. :class:`ExportedModel` gives it the images of a
    batch one by one. With preprocessing inside it takes pixel values as float32, as ``ncnn::Mat::from_pixels`` makes
    them. For fp16 the weights in the file are float16. They are computed with in float32 here.
    """

    name = 'ncnn'
    suffixes = ('.param',)
    precisions = ('fp32', 'fp16')
    options = frozenset({'with_preprocess', 'softmax'})
    any_size = True
    packages = ('ncnn',)
    writing_packages = ('pnnx',)
    extra = 'ncnn'
    runtime = 'ncnn'
    runtime_title = 'ncnn'
    computes = ('fp32',)
    network_precision = 'fp32'  # the converter changes the weights
    quantizers = (NcnnQuantizer(),)

    def list_files(self, path: Path) -> tuple[Path, ...]:
        from .ncnn_files import get_weights_path

        return path, get_weights_path(path)

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        from .ncnn_files import read_layers, write_layers
        from .scripts import write_script

        with tempfile.TemporaryDirectory() as folder:
            module = Path(folder, 'network.pt')
            write_script(network, example[:1].float(), module)  # ncnn knows no uint8
            layers = read_layers(*_convert(module, half=metadata.precision == 'fp16'))
        _name_layers(layers, network)
        blobs = {'in0': INPUT, 'out0': OUTPUT}
        for layer in layers:
            layer.inputs = [blobs.get(name, name) for name in layer.inputs]
            layer.outputs = [blobs.get(name, name) for name in layer.outputs]
        write_layers(layers, path, metadata.to_json())

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        import torch

        from .exported_model import ExportedModel
        from .metadata import ExportMetadata
        from .ncnn_files import read_record
        from .ncnn_network import compute_blobs, load_network

        metadata = ExportMetadata.from_json(read_record(path), path)
        network = load_network(path, num_threads)

        def run(x: 'Tensor') -> 'Tensor':
            images = x.float().cpu().contiguous().numpy()
            scores = [torch.from_numpy(next(compute_blobs(network, image, [OUTPUT]))) for image in images]
            return torch.stack(scores).to(x.device) if scores else x.new_zeros(0, metadata.num_classes).float()

        return ExportedModel(path, run, metadata, 'int8' if metadata.precision == 'int8' else 'fp32')


NCNN = NcnnFormat()


def _convert(module: Path, *, half: bool) -> tuple[Path, Path]:
    """Convert a TorchScript file, and return the .param and the .bin beside it."""
    import pnnx

    from .network import ExportError

    # all outputs are named, or else some go elsewhere
    outputs = {
        kind: module.with_name(f'converted.{ending}')
        for kind, ending in {
            'ncnnparam': 'param',
            'ncnnbin': 'bin',
            'ncnnpy': 'ncnn.py',
            'pnnxparam': 'pnnx.param',
            'pnnxbin': 'pnnx.bin',
            'pnnxpy': 'pnnx.py',
            'pnnxonnx': 'onnx',
        }.items()
    }
    # without fp16=0 the converter stores the weights in float16
    arguments = [f'fp16={int(half)}', *(f'{kind}={path}' for kind, path in outputs.items())]
    done = subprocess.run([pnnx.EXEC_PATH, module, *arguments], cwd=module.parent, capture_output=True, text=True)
    if done.returncode or not outputs['ncnnparam'].exists():
        raise ExportError(f'pnnx can not convert the network: {(done.stderr or done.stdout).strip()[-200:]}')
    return outputs['ncnnparam'], outputs['ncnnbin']


def _name_layers(layers: 'Iterable[Layer]', network: 'nn.Module') -> None:
    """Give layers the names of the modules that have their weights, instead of numbers."""
    import torch

    names: dict[bytes, list[str]] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            names.setdefault(module.weight.detach().numpy().tobytes(), []).append(name)
    for layer in layers:
        found = names.get(b'' if layer.weight is None else layer.weight.tobytes())
        if found:
            layer.name = found.pop(0)

"""A network as a file behind the runtime that reads it, by the code that writes and reads the files of users."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .. import __version__
from ..quantization.onnx_files import OnnxQuantizer
from ..quantization.openvino_files import quantize_openvino, save_quantized
from ..quantization.settings import QUANTIZERS, QuantizationSettings, require_quantizer
from ..runtimes import writers
from ..runtimes.classifier import ExportedClassifier
from ..runtimes.formats import find_format, require_packages
from ..runtimes.loaders import load_exported
from ..runtimes.metadata import ExportMetadata
from ..runtimes.network import DeployedNetwork
from ..runtimes.openvino_core import get_core
from .cases import Case

Write = Callable[[nn.Module, Path, Tensor, ExportMetadata], object]


@dataclass(frozen=True)
class _FileFormat:
    """How a runtime's files are made.

    Attributes:
        suffix: What they end in.
        write: Writes one.
        precisions: What the runtime computes in on CPUs. A file in another one would be computed in fp32 under a
            wrong name.
    """

    suffix: str
    write: Write
    precisions: tuple[str, ...]


_FILES: dict[str, _FileFormat] = {
    'onnxruntime': _FileFormat('.onnx', partial(writers.write_onnx, opset=None), ('fp32', 'int8')),
    'openvino': _FileFormat('.xml', writers.write_openvino, ('fp32', 'bf16', 'int8')),
    'torch-export': _FileFormat('.pt2', writers.write_torch_export, ('fp32', 'bf16', 'fp16')),
    'torchscript': _FileFormat('.torchscript', writers.write_torchscript, ('fp32', 'bf16', 'fp16')),
}


def prepare_exported(
    case: Case, network: nn.Module, inputs: Tensor
) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """Export ``network`` for any batch size, load the file, and return what runs one batch.

    Args:
        case: What is asked for.
        network: In eval mode, in fp32 on the CPU.
        inputs: ``(N, 3, H, W)``, in fp32 on the CPU; the runtimes read it where it lies.

    Returns:
        A call to be timed, and one that gives the logits ``(N, num_classes)``, fp32 in every precision.

    Raises:
        ModuleNotFoundError: If the exporter or the runtime is not installed.
        ValueError: If the runtime does not compute in this precision on this CPU.
    """
    row = _FILES[case.runtime]
    require_packages(find_format(f'network{row.suffix}'), write=True)
    _check_precision(case, row)
    metadata = _describe(case, network(inputs[:1]).shape[1], inputs)
    is_int8 = case.precision == 'int8'
    # OpenVINO is told the precision when it loads the file; int8 is made of a float32 file
    inside = 'fp32' if case.runtime == 'openvino' or is_int8 else case.precision
    deployed = DeployedNetwork(network, inside).eval().requires_grad_(False)
    with TemporaryDirectory() as folder:
        path = Path(folder, f'network{row.suffix}')
        # an example of one image would be taken for a constant batch size
        row.write(deployed, path, inputs[:1].repeat(2, 1, 1, 1), metadata)
        if is_int8:
            path = _quantize(path, inputs, metadata)
        if case.network == 'tested':
            return _prepare_tested(ExportedClassifier(path, num_threads=case.threads), inputs)
        exported = load_exported(path, num_threads=case.threads)
    return lambda: exported(inputs), lambda: exported(inputs)


def _prepare_tested(classifier: Any, inputs: Tensor) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    # the time does not depend on what is in the images
    images = list(torch.zeros(inputs.shape, dtype=torch.uint8))
    batch = dict(inputs=images, data_samples=[DataSample() for _ in images])
    classifier.eval()
    return lambda: classifier.test_step(batch), lambda: classifier.exported(inputs)


def _quantize(path: Path, inputs: Tensor, metadata: ExportMetadata) -> Path:
    """Make an int8 file, calibrated on ``inputs``, by the code of tools/quantize.py with its defaults."""
    require_quantizer(find_format(path), QUANTIZERS[find_format(path).name][0])
    quantized = path.with_stem('int8')
    if path.suffix == '.onnx':
        quantizer = OnnxQuantizer(path, per_channel=True)
        quantizer.calibrate([inputs.numpy()], 'minmax')
        quantizer.write(quantized, metadata)
    else:
        images = [image.numpy() for image in inputs.split(1)]
        model = quantize_openvino(path, images, QuantizationSettings('per-channel'))
        save_quantized(model, quantized, metadata)
    return quantized


def _check_precision(case: Case, row: _FileFormat) -> None:
    if case.precision not in row.precisions:
        raise ValueError(
            f'precision must be one of {", ".join(row.precisions)}, in which {case.runtime} computes on CPUs, '
            f'got {case.precision}'
        )
    if case.runtime == 'openvino' and case.precision == 'bf16':
        capabilities = get_core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if 'BF16' not in capabilities:
            raise ValueError('precision must be fp32: OpenVINO has no bf16 on this CPU and computes in fp32 instead')


def _describe(case: Case, num_classes: int, inputs: Tensor) -> ExportMetadata:
    return ExportMetadata(
        arch=case.model,
        classes=(),
        num_classes=num_classes,
        channels=inputs.shape[1],
        input_size=(inputs.shape[2], inputs.shape[3]),
        batch_size=None,
        # what tools/test.py does before the network
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        to_rgb=True,
        precision=case.precision,
        with_preprocess=False,
        softmax=False,
        source_sha256='',
        version=__version__,
    )

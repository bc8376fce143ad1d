"""A network as an exported file. It is written and run by the code that writes and runs the files of users."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .. import __version__
from ..quantization.plan import make_plan
from ..quantization.settings import QuantizationSettings
from ..runtimes.classifier import ExportedClassifier
from ..runtimes.format import Format
from ..runtimes.loading import load_exported
from ..runtimes.metadata import ExportMetadata
from ..runtimes.table import FORMATS
from .cases import Case
from .runner import Runner


def prepare_exported(case: Case, network: nn.Module, inputs: Tensor) -> Runner:
    """Export a network for any batch size, and load the file.

    Args:
        case: The case.
        network: Network in eval mode, fp32, on the CPU.
        inputs: Images ``(N, 3, H, W)``, fp32, on the CPU. The runtimes do not copy them.

    Raises:
        ModuleNotFoundError: If the exporter or the runtime is not installed.
        ValueError: If the runtime does not compute in this precision on this CPU.
    """
    row = next(row for row in FORMATS if row.runtime == case.runtime)
    row.require_packages(write=True)
    computes = (*row.computes, *(['int8'] if row.quantizers else []))
    if case.precision not in computes:
        raise ValueError(
            f'precision must be one of {", ".join(computes)}, because {case.runtime} computes in no other on CPUs, '
            f'got {case.precision}'
        )
    metadata = _describe(case, network(inputs[:1]).shape[1], inputs)
    with TemporaryDirectory() as folder:
        path = Path(folder, f'network{row.suffixes[0]}')
        if case.precision == 'int8':
            _write_int8(row, network, path, inputs, metadata)
        else:
            row.write(network, path, metadata)
        if case.network == 'tested':
            return _prepare_tested(ExportedClassifier(path, num_threads=case.threads), inputs, row.measure_size(path))
        exported = load_exported(path, num_threads=case.threads)
        file_size = row.measure_size(path)
    if exported.computes_in != case.precision:
        raise ValueError(
            f'precision must be {exported.computes_in}: {row.runtime_title} has no {case.precision} on this CPU, and '
            f'computes in {exported.computes_in} instead'
        )
    return Runner(lambda: exported(inputs), lambda: exported(inputs), file_size)


def _prepare_tested(classifier: Any, inputs: Tensor, file_size: int) -> Runner:
    # the time does not depend on the values of the pixels
    images = list(torch.zeros(inputs.shape, dtype=torch.uint8))
    batch = dict(inputs=images, data_samples=[DataSample() for _ in images])
    classifier.eval()
    return Runner(lambda: classifier.test_step(batch), lambda: classifier.exported(inputs), file_size)


def _write_int8(row: Format, network: nn.Module, path: Path, inputs: Tensor, metadata: ExportMetadata) -> None:
    """Write an int8 file as `quantize_model` does by default, calibrated on ``inputs``."""
    plan = make_plan(row, QuantizationSettings())
    plan.quantizer.require_packages(row)
    source = path.with_name(f'float{plan.source.suffixes[0]}')
    plan.source.write(network, source, replace(metadata, precision='fp32'))
    int8 = plan.quantizer.calibrate(
        source, [inputs.numpy()], granularity=plan.granularity, calibration=plan.settings.calibration
    )
    int8.write(path, metadata)


def _describe(case: Case, num_classes: int, inputs: Tensor) -> ExportMetadata:
    return ExportMetadata(
        arch=case.model,
        classes=(),
        num_classes=num_classes,
        channels=inputs.shape[1],
        input_size=(inputs.shape[2], inputs.shape[3]),
        batch_size=None,
        # noise that looks normalised
        mean=(),
        std=(),
        to_rgb=True,
        precision=case.precision,
        with_preprocess=False,
        softmax=False,
        source_sha256='',
        version=__version__,
    )

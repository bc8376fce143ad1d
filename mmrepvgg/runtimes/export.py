"""A checkpoint -> a file for a runtime, verified by running that file."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.loading import load_weights
from ..checkpoints.reading import Checkpoint, hash_file, read_checkpoint
from ..checkpoints.writing import replacing
from ..data.inputs import find_input_size, iterate_images
from ..models.backbone import RepVGG
from ..models.building import build_model
from ..models.fake_quant import find_quantizers
from ..reparam.switch import reparameterize
from . import writers
from .formats import Format, check_options, find_format, require_packages
from .loaders import ExportedModel, load_exported
from .metadata import ExportMetadata
from .network import DeployedNetwork, ExportError, WithPreprocess, check_half_range
from .opsets import MIN_OPSET

# Largest difference to the float32 model that is let pass, relative to the largest output.
DEFAULT_TOLERANCES = {'fp32': 1e-4, 'fp16': 1e-2, 'bf16': 5e-2}


@dataclass(frozen=True)
class Export:
    """What an export did.

    Attributes:
        metadata: What the file says about itself.
        max_difference: Largest absolute difference of an output of the file from the checkpoint's in PyTorch, float32.
        difference: The same, relative to the largest output.
        num_inputs: On how many images that was measured.
        computed_in: In which precision the runtime computed on this machine, see :class:`ExportedModel`.
        was_switched: Whether the checkpoint was in train form.
        was_trained_for_int8: Whether it is of quantization-aware training: in float it may be far less accurate.
        max_activation: fp16 only: largest absolute output of a layer; float16 ends at 65504.
    """

    metadata: ExportMetadata
    max_difference: float
    difference: float
    num_inputs: int
    computed_in: str
    was_switched: bool
    was_trained_for_int8: bool
    max_activation: float | None = None


def export_model(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path,
    *,
    input_size: Sequence[int] | None = None,
    dynamic_batch: bool = True,
    batch_size: int = 1,
    opset: int | None = None,
    precision: str = 'fp32',
    with_preprocess: bool = False,
    softmax: bool = False,
    ema: bool = False,
    data: str | Path | None = None,
    tolerance: float | None = None,
) -> Export:
    """Write ``checkpoint`` for the runtime that ``out``'s ending names, run the file, and only then put it in place.

    A checkpoint in train form is switched on the way; the file is compared with the form that the checkpoint has.
    The file's input ``images`` is ``(N, C, H, W)``, its output ``scores`` ``(N, classes)``, both float32 in every
    precision; with preprocessing the input is uint8.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: Weights of the classifier, in either form.
        out: The file; its ending is one of :data:`mmrepvgg.runtimes.formats.EXPORTED_SUFFIXES`.
        input_size: Height and width in pixels. Default: those of the config's test pipeline.
        dynamic_batch: The file takes any N, otherwise ``batch_size`` only.
        batch_size: Of a file without dynamic batch.
        opset: ONNX: the version of the operators, 11 or later. Default: the exporter's.
        precision: ``'fp32'``, ``'fp16'`` or ``'bf16'``.
        with_preprocess: Put the change to RGB and the normalisation into the file.
        softmax: Give probabilities.
        ema: Export the averaged weights.
        data: An image or a folder of images to compare on. Default: seeded noise.
        tolerance: Largest allowed difference, relative to the largest output. Default:
            :data:`DEFAULT_TOLERANCES` by precision.

    Raises:
        ValueError: If the format is unknown or has not what is asked for.
        MissingPackageError: If the exporter is not installed.
        CheckpointError: If the checkpoint can't be read, or does not fit.
        ExportError: If fp16 would overflow, or the file differs by more than ``tolerance``.
    """
    row = find_format(out)
    asked = {
        'opset': opset is not None,
        'fixed batch size': not dynamic_batch,
        'preprocessing': with_preprocess,
        'softmax': softmax,
    }
    check_options(row, precision, [name for name, is_asked in asked.items() if is_asked])
    if opset is not None and opset < MIN_OPSET:
        raise ValueError(f'opset must be at least {MIN_OPSET}, got {opset}')
    require_packages(row, write=True)

    prepared = prepare_model(
        cfg,
        checkpoint,
        input_size=input_size,
        batch_size=None if dynamic_batch else batch_size,
        precision=precision,
        with_preprocess=with_preprocess,
        softmax=softmax,
        ema=ema,
    )
    model, metadata = prepared.model, prepared.metadata
    max_activation = None
    if precision == 'fp16':
        max_activation = check_half_range(
            prepared.deployed, (normalise(model, x) for x in _iterate_inputs(cfg, metadata, data))
        )

    with replacing_files(row, out) as temporary:
        write_file(row, prepared.deployed, temporary, metadata, cfg, opset)
        exported = load_exported(temporary)
        difference, largest, num_inputs = _compare(cfg, model, exported, data)
        relative = difference / largest if largest else difference
        allowed = DEFAULT_TOLERANCES[precision] if tolerance is None else tolerance
        if not relative <= allowed:  # not >, which NaN would pass
            raise ExportError(
                f'the {row.name} file of {checkpoint} differs from PyTorch by {relative:.2e} of the largest output, '
                f'more than the tolerance of {allowed:.0e}; nothing was written. --tolerance allows more'
            )
    return Export(
        metadata,
        difference,
        relative,
        num_inputs,
        exported.computes_in,
        prepared.was_switched,
        bool(find_quantizers(model)),
        max_activation,
    )


@dataclass(frozen=True)
class PreparedModel:
    """A checkpoint, ready to be written.

    Attributes:
        model: The classifier in the form that the checkpoint has; its data preprocessor normalises.
        deployed: The classifier in deploy form.
        metadata: What the file is to say about itself.
        was_switched: Whether the checkpoint was in train form.
    """

    model: Any
    deployed: nn.Module
    metadata: ExportMetadata
    was_switched: bool


def prepare_model(
    cfg: Config,
    checkpoint: str | Path,
    *,
    input_size: Sequence[int] | None,
    batch_size: int | None,
    precision: str,
    with_preprocess: bool,
    softmax: bool,
    ema: bool,
) -> PreparedModel:
    """Read a checkpoint, switch it, and describe the file that is to be made of it; arguments as of the export.

    Raises:
        CheckpointError: If the checkpoint can't be read, or does not fit.
        ExportError: If the model is no classifier on a RepVGG.
    """
    weights = read_checkpoint(checkpoint, ema)
    model: Any = build_model(cfg, deploy=weights.is_deploy_form)
    load_weights(model, weights)
    deployed = reparameterize(model)
    metadata = _describe(
        cfg,
        model,
        weights,
        input_size=tuple(input_size) if input_size is not None else find_input_size(cfg),
        batch_size=batch_size,
        precision=precision,
        with_preprocess=with_preprocess,
        softmax=softmax,
    )
    return PreparedModel(model, deployed, metadata, not weights.is_deploy_form)


@contextmanager
def replacing_files(row: Format, out: str | Path) -> Iterator[Path]:
    """:func:`replacing` for all files of a format: OpenVINO's .bin, beside the yielded .xml, is put in place, too."""
    with ExitStack() as stack:
        # the .xml last: it is what is opened, and it knows its .bin
        temporary = stack.enter_context(replacing(out))
        if row.name == 'OpenVINO':
            stack.enter_context(replacing(Path(out).resolve().with_suffix('.bin')))
        yield temporary


def _describe(cfg: Config, model: Any, checkpoint: Checkpoint, **settings: Any) -> ExportMetadata:
    backbone = next((module for module in model.modules() if isinstance(module, RepVGG)), None)
    if backbone is None or not getattr(model, 'with_head', False):
        raise ExportError(f'the model must be a classifier on a RepVGG of mmrepvgg, got {type(model).__name__}')
    height, width = settings['input_size']
    with torch.no_grad():
        logits = model(torch.zeros(1, backbone.in_channels, height, width))
    preprocessor = model.data_preprocessor
    if settings['with_preprocess'] and getattr(preprocessor, 'pad_size_divisor', 1) > 1:
        raise ExportError(
            f'pad_size_divisor must be 1 for preprocessing in the file, got {preprocessor.pad_size_divisor}; '
            'leave out --with-preprocess'
        )
    has_mean = getattr(preprocessor, '_enable_normalize', False)
    arch = cfg.model.backbone.arch
    return ExportMetadata(
        arch=arch if isinstance(arch, str) else json.dumps(arch),
        classes=_find_classes(cfg, checkpoint, logits.shape[1]),
        num_classes=logits.shape[1],
        channels=backbone.in_channels,
        mean=tuple(preprocessor.mean.flatten().tolist()) if has_mean else (),
        std=tuple(preprocessor.std.flatten().tolist()) if has_mean else (),
        to_rgb=bool(getattr(preprocessor, 'to_rgb', False)) and backbone.in_channels == 3,
        source_sha256=hash_file(checkpoint.path),
        version=__version__,
        **settings,
    )


def _find_classes(cfg: Config, checkpoint: Checkpoint, num_classes: int) -> tuple[str, ...]:
    """The names in the checkpoint, else those of the data set's class (ImageNet's), else none."""
    names = (checkpoint.meta.get('dataset_meta') or {}).get('classes')
    if names:
        # a head may have more classes than were trained
        return (*map(str, names[:num_classes]), *map(str, range(len(names), num_classes)))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        dataset = DATASETS.get(cfg.test_dataloader.dataset.type)
    names = (getattr(dataset, 'METAINFO', None) or {}).get('classes') or ()
    return tuple(map(str, names)) if len(names) == num_classes else ()


def write_file(
    row: Format, deployed: nn.Module, path: Path, metadata: ExportMetadata, cfg: Config, opset: int | None = None
) -> None:
    """Write a classifier in deploy form as ``metadata`` describes it; changes it to that precision."""
    if row.name == 'safetensors':
        writers.write_safetensors(deployed, path, metadata, cfg.model.to_dict())
        return
    # OpenVINO has the precision as an option of the file and of the runtime, and wants a float32 model
    inside = 'fp32' if row.name == 'OpenVINO' else metadata.precision
    network: nn.Module = DeployedNetwork(deployed, inside, metadata.softmax)
    if metadata.with_preprocess:
        network = WithPreprocess(network, metadata.mean, metadata.std, metadata.to_rgb)
    network.eval().requires_grad_(False)
    # a batch of 1 would be taken for a constant
    shape = (metadata.batch_size or 2, metadata.channels, *metadata.input_size)
    example = torch.zeros(shape, dtype=torch.uint8 if metadata.with_preprocess else torch.float32)
    if row.name == 'ONNX':
        writers.write_onnx(network, path, example, metadata, opset)
    elif row.name == 'OpenVINO':
        writers.write_openvino(network, path, example, metadata)
    elif row.name == 'torch.export':
        writers.write_torch_export(network, path, example, metadata)
    else:
        writers.write_torchscript(network, path, example, metadata)


@torch.no_grad()
def _compare(cfg: Config, model: Any, exported: ExportedModel, data: str | Path | None) -> tuple[float, float, int]:
    """Run the file and the model on the same images: largest difference, largest output, number of images.

    The difference is NaN if an output is not finite.
    """
    metadata = exported.metadata
    largest_difference = largest_output = 0.0
    num_inputs = 0
    for images in _iterate_inputs(cfg, metadata, data):
        normalised = normalise(model, images)
        expected = model(normalised)
        if metadata.softmax:
            expected = expected.softmax(1)
        scores = exported(images if metadata.with_preprocess else normalised)
        if not (expected.isfinite().all() and scores.isfinite().all()):
            return float('nan'), 1.0, num_inputs
        largest_difference = max(largest_difference, (expected - scores).abs().max().item())
        largest_output = max(largest_output, expected.abs().max().item())
        num_inputs += len(images)
    return largest_difference, largest_output, num_inputs


def _iterate_inputs(cfg: Config, metadata: ExportMetadata, data: str | Path | None) -> Iterator[Tensor]:
    """Images as a pipeline gives them, ``(N, C, H, W)`` uint8, in batches of several sizes."""
    shape = (metadata.channels, *metadata.input_size)
    noise = torch.randint(256, (3, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    if data is None:
        yield from noise.split([2, 1])
        return
    for images in iterate_images(Path(data), cfg, _stack):
        if images.shape[1:] != noise.shape[1:]:
            raise ExportError(
                f"the config's test pipeline gives images of the shape {tuple(images.shape[1:])}, and the file is to "
                f'take {shape}; leave out --data (seeded noise is used) or --input-size'
            )
        yield images


def _stack(batch: dict[str, Any]) -> dict[str, Any]:
    return dict(inputs=torch.stack(batch['inputs']))


def normalise(model: Any, images: Tensor) -> Tensor:
    """What a classifier's data preprocessor makes of uint8 images ``(N, C, H, W)``."""
    return model.data_preprocessor(dict(inputs=images))['inputs']

"""The export: it writes a file for a runtime, runs that file and compares it with the checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from ..data.images import iterate_images
from ..equalization.equalize import equalize as equalize_model
from ..equalization.equalize import require_float_training
from ..measures.difference import Difference
from ..models.fake_quant import find_quantizers
from .exported_model import ExportedModel
from .metadata import ExportMetadata
from .network import ExportError, check_half_range
from .prepared import normalise, prepare_model
from .table import find_format

# Largest allowed difference from the float32 model, relative to the largest output, by precision.
DEFAULT_TOLERANCES = {'fp32': 1e-4, 'fp16': 1e-2, 'bf16': 5e-2}


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        metadata: Description of the file, which is stored in it.
        max_difference: Largest absolute difference between the outputs of the file and those of the checkpoint, which
            PyTorch computes in float32.
        difference: The same difference, relative to the largest output.
        num_inputs: Number of images on which the difference was measured.
        computed_in: Precision in which the runtime computed on this machine. It can be another than the file's.
        was_switched: Whether the checkpoint was in train form.
        was_trained_for_int8: Whether the checkpoint comes from quantization-aware training. Its accuracy in float32
            may be far lower than in int8.
        num_equalized: Number of channels that were rescaled.
        left_alone: Reason why the outputs of a layer kept their scale, by the name of the layer.
        max_activation: Largest absolute output of a layer, for fp16 only. The largest float16 number is 65504.
        not_run: Why the file was not run on this machine, and what was checked instead. Empty if it was run.
    """

    metadata: ExportMetadata
    max_difference: float
    difference: float
    num_inputs: int
    computed_in: str
    was_switched: bool
    was_trained_for_int8: bool
    num_equalized: int
    left_alone: Mapping[str, str]
    max_activation: float | None = None
    not_run: str = ''


def export_model(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path,
    *,
    input_size: Sequence[int] | None = None,
    dynamic_batch: bool = True,
    batch_size: int = 1,
    dynamic_size: bool = False,
    opset: int | None = None,
    precision: str = 'fp32',
    with_preprocess: bool = False,
    softmax: bool = False,
    ema: bool = False,
    data: str | Path | None = None,
    tolerance: float | None = None,
    equalize: bool = False,
) -> Export:
    """Write a checkpoint as a file for a runtime.

    A checkpoint in train form is switched to deploy form first. The file is run and compared with the checkpoint
    before it is put in place. Its input ``images`` has the shape ``(N, C, H, W)``, its output ``scores`` has
    ``(N, classes)``. Both are float32 in every precision; with preprocessing inside the input is uint8.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: Weights of the classifier, in either form.
        out: File to write. Its ending chooses the runtime (``mmrepvgg.runtimes.table``).
        input_size: Height and width of the images in pixels. Default: those of the config's test pipeline.
        dynamic_batch: Whether the file takes any N, or only ``batch_size``.
        batch_size: Batch size of a file without dynamic batch.
        dynamic_size: Whether the file takes images of any height and width, too. It is compared at three sizes then.
        opset: Version of the ONNX operators, 11 or later. Default: that of the exporter.
        precision: ``'fp32'``, ``'fp16'`` or ``'bf16'``.
        with_preprocess: Whether the change to RGB and the normalisation are in the file.
        softmax: Whether the file gives probabilities instead of logits.
        ema: Whether the averaged weights are exported.
        data: Image or folder of images on which the file is compared. Default: seeded noise.
        tolerance: Largest allowed difference, relative to the largest output. Default: the entry of
            1e-4 for fp32, 1e-2 for fp16, 5e-2 for bf16.
        equalize: Rescale the channels, exactly, so that int8 with one scale a tensor loses least, whatever makes an
            int8 model of the file (:func:`mmrepvgg.equalize`): by the images of ``data``, or else by the weights alone.

    Raises:
        ValueError: If the format is unknown or does not support an argument, if the classifier gives an image several
            labels, or if the model can't be equalized.
        MissingPackageError: If the exporter is not installed.
        CheckpointError: If the checkpoint can't be read, or does not fit.
        ExportError: If fp16 would overflow, or if the file differs by more than ``tolerance``.
    """
    row = find_format(out)
    row.check(
        precision=precision,
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic_size=dynamic_size,
        with_preprocess=with_preprocess,
        softmax=softmax,
    )
    row.require_packages(write=True)
    row.require_writable(out)
    allowed = DEFAULT_TOLERANCES[precision] if tolerance is None else tolerance

    prepared = prepare_model(
        cfg,
        checkpoint,
        input_size=input_size,
        batch_size=None if dynamic_batch else batch_size,
        dynamic_size=dynamic_size or row.any_size,
        precision=precision,
        with_preprocess=with_preprocess,
        softmax=softmax,
        ema=ema,
    )
    model, deployed, metadata = prepared.model, prepared.deployed, prepared.metadata
    shape = (metadata.channels, *metadata.input_size)
    equalization = None
    if equalize:
        require_float_training(model)
        images = (normalise(model, x) for x in iterate_inputs(cfg, shape, data))
        equalization = equalize_model(deployed, None if data is None else images)
        deployed = equalization.model
    max_activation = None
    if precision == 'fp16':
        max_activation = check_half_range(deployed, (normalise(model, x) for x in iterate_inputs(cfg, shape, data)))

    with row.replacing(out) as temporary:
        row.write(deployed, temporary, metadata, model_cfg=cfg.model.to_dict(), opset=opset)
        exported = row.load_to_check(temporary)
        inputs = chain(iterate_inputs(cfg, shape, data), _iterate_other_sizes(metadata))
        difference = _compare(model, exported, inputs)
        if difference.exceeds(allowed):
            raise ExportError(
                f'the {row.name} file of {checkpoint} differs from PyTorch by {difference.relative:.2e} of the largest '
                f'output, more than the tolerance of {allowed:.0e}; nothing was written. Allow more with `tolerance`'
            )
    return Export(
        metadata,
        difference.largest,
        difference.relative,
        difference.num_inputs,
        exported.computes_in,
        prepared.was_switched,
        bool(find_quantizers(model)),
        equalization.num_channels if equalization else 0,
        equalization.left_alone if equalization else {},
        max_activation,
        f'{obstacle}; checked: {row.checks}' if (obstacle := row.find_obstacle()) else '',
    )


@torch.no_grad()
def _compare(model: Any, exported: ExportedModel, batches: Iterable[Tensor]) -> Difference:
    """Run the file and the model on the same uint8 images."""
    difference = Difference()
    for images in batches:
        normalised = normalise(model, images)
        expected = model(normalised)
        if exported.metadata.softmax:
            expected = expected.softmax(1)
        difference.add(expected, exported(images if exported.metadata.with_preprocess else normalised))
    return difference


def iterate_inputs(cfg: Config, shape: Sequence[int], data: str | Path | None) -> Iterator[Tensor]:
    """Images ``(N, C, H, W)`` before normalisation, uint8, in batches of several sizes.

    Args:
        cfg: The config, whose test pipeline reads images.
        shape: ``(C, H, W)``.
        data: Image or folder of images; None for seeded noise.

    Raises:
        ExportError: If the pipeline gives images of another shape.
    """
    noise = _make_noise(3, shape)
    if data is None:
        yield from noise.split([2, 1])
        return
    for images in iterate_images(Path(data), cfg, _stack):
        if images.shape[1:] != noise.shape[1:]:
            raise ExportError(
                f"the config's test pipeline gives images of the shape {tuple(images.shape[1:])}, but the file takes "
                f'{tuple(shape)}; leave out `data` (seeded noise is used then) or `input_size`'
            )
        yield images


def _iterate_other_sizes(metadata: ExportMetadata) -> Iterator[Tensor]:
    """Noise of two other sizes, if the file takes any. The network halves a size five times."""
    height, width = metadata.input_size
    if metadata.dynamic_size:
        for size in ((height + 32, width), (height, width + 17)):
            yield _make_noise(1, (metadata.channels, *size))


def _make_noise(num_images: int, shape: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num_images, *shape), generator=generator).to(torch.uint8)


def _stack(batch: dict[str, Any]) -> dict[str, Any]:
    return dict(inputs=torch.stack(batch['inputs']))

"""A checkpoint -> a file for a runtime, verified by running that file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from ..checkpoints.writing import require_writable
from ..data.images import iterate_images
from ..measures.difference import Difference
from ..models.fake_quant import find_quantizers
from .exported_model import ExportedModel
from .loading import load_exported
from .metadata import ExportMetadata
from .network import ExportError, check_half_range
from .prepared import normalise, prepare_model
from .table import find_format

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
        out: The file; its ending says for which runtime (``mmrepvgg.runtimes.table``).
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
    row.check(
        precision=precision, opset=opset, dynamic_batch=dynamic_batch, with_preprocess=with_preprocess, softmax=softmax
    )
    row.require_packages(write=True)
    require_writable(out)
    allowed = DEFAULT_TOLERANCES[precision] if tolerance is None else tolerance

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

    with row.replacing(out) as temporary:
        row.write(prepared.deployed, temporary, metadata, model_cfg=cfg.model.to_dict(), opset=opset)
        exported = load_exported(temporary)
        difference = _compare(model, exported, _iterate_inputs(cfg, metadata, data))
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
        max_activation,
    )


@torch.no_grad()
def _compare(model: Any, exported: ExportedModel, batches: Iterable[Tensor]) -> Difference:
    """Run the file and the model on the same images, as a pipeline gives them."""
    difference = Difference()
    for images in batches:
        normalised = normalise(model, images)
        expected = model(normalised)
        if exported.metadata.softmax:
            expected = expected.softmax(1)
        difference.add(expected, exported(images if exported.metadata.with_preprocess else normalised))
    return difference


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
                f'take {shape}; leave out `data` (seeded noise is used) or `input_size`'
            )
        yield images


def _stack(batch: dict[str, Any]) -> dict[str, Any]:
    return dict(inputs=torch.stack(batch['inputs']))

"""A checkpoint -> an int8 file, measured against float32 before it is kept."""

import copy
import functools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn

from ..checkpoints.writing import require_writable
from ..models.norm_scales import clip_norm_scales
from ..progress import track
from ..reparam.switch import reparameterize
from ..runtimes.format import Int8Model, Ranges
from ..runtimes.metadata import ExportMetadata
from ..runtimes.prepared import PreparedModel, prepare_model
from ..runtimes.table import find_format
from .fallback import limit_drop
from .measuring import Batch, compare, load_file, measure_accuracy, read_inputs, run_reference
from .plan import Plan, make_plan
from .settings import QuantizationSettings
from .trained import find_training


@dataclass(frozen=True)
class Quantization:
    """What a quantization did.

    Attributes:
        metadata: What the file says about itself.
        int8_layers: Names of the layers that are int8, in the model's own names.
        float_layers: Those of the other convolutions and linear layers.
        granularity: Of the weights.
        reference: What the file is compared with: ``'float32'``, or ``'training'``, the int8 that quantization-aware
            training simulated.
        accuracy_reference: Top-1 in percent of that on the test images; None if they were left out.
        accuracy_all_int8: That of the file as it was before layers were put back to float32. None without ``max_drop``.
        accuracy: That of the file.
        agreement: Percentage of images to which the file gives the same label as the reference.
        num_images: On how many images that was measured.
        images: Of which split these are.
        num_calibration: On how many images the ranges were measured.
        size: Bytes of the file, the .bin included.
        size_ratio: That of the same file in float32, divided by ``size``.
        was_switched: Whether the checkpoint was in train form.
        num_clipped: How many channels ``clip_scales`` limited; None without it.
    """

    metadata: ExportMetadata
    int8_layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    granularity: str
    reference: str
    accuracy_reference: float | None
    accuracy_all_int8: float | None
    accuracy: float | None
    agreement: float
    num_images: int
    images: str
    num_calibration: int
    size: int
    size_ratio: float
    was_switched: bool
    num_clipped: int | None = None


def quantize_model(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path,
    settings: QuantizationSettings | None = None,
    *,
    dynamic_batch: bool = True,
    batch_size: int = 1,
    with_preprocess: bool = False,
    softmax: bool = False,
    ema: bool = False,
    activation_ranges: Ranges | None = None,
) -> Quantization:
    """Write ``checkpoint`` as an int8 file for the runtime that ``out``'s ending names.

    The ranges of the activations come from the config's training images as its test pipeline prepares them, and by
    the quantizer of the runtime's makers: ONNX Runtime's, or NNCF for OpenVINO. Of a model that was trained
    quantization-aware they are those of its training (the checkpoint must be in train form), as if given as
    ``activation_ranges``, and the file is compared with what training simulated.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: Weights of the classifier, in either form.
        out: The file, .onnx or .xml.
        settings: How to quantize. Default: by smallest and largest value.
        dynamic_batch: The file takes any N, otherwise ``batch_size`` only.
        batch_size: Of a file without dynamic batch.
        with_preprocess: Put the change to RGB and the normalisation into the file.
        softmax: Give probabilities.
        ema: Take the averaged weights.
        activation_ranges: Smallest and largest value of the inputs of convolutions, by their names in the deploy form
            (``'backbone.stage_1.0'``), as quantization-aware training learns them. These convolutions
            alone are quantized then, with exactly these ranges: uint8 inputs, and int8 weights with the scale
            ``max(abs(weight)) / 127``, of each channel or of the whole. Nothing is calibrated.

    Raises:
        ValueError: If the format has not what is asked for, ``activation_ranges`` does not fit the model or goes with
            ``max_drop``, ``clip_scales`` goes with a model without branches or one trained for int8, or the data can't
            be read.
        MissingPackageError: If a package is not installed.
        CheckpointError: If the checkpoint can't be read, or does not fit.
        AccuracyError: If ``max_drop`` can't be met. Nothing is written.
    """
    settings = settings or QuantizationSettings()
    row = find_format(out)
    make_plan(row, settings, ranges=activation_ranges)
    row.check(dynamic_batch=dynamic_batch, with_preprocess=with_preprocess, softmax=softmax)
    row.require_packages(write=True)
    require_writable(out)
    prepared = prepare_model(
        cfg,
        checkpoint,
        input_size=None,
        batch_size=None if dynamic_batch else batch_size,
        precision='int8',
        with_preprocess=with_preprocess,
        softmax=softmax,
        ema=ema,
    )
    plan = make_plan(
        row,
        settings,
        trained=find_training(prepared.model),
        ranges=activation_ranges,
        has_branches=prepared.was_switched,
    )
    plan.quantizer.require_packages(row)
    with tempfile.TemporaryDirectory() as folder, row.replacing(out) as temporary:
        return _quantize(cfg, prepared, plan, Path(folder), temporary)


def _quantize(cfg: Config, prepared: PreparedModel, plan: Plan, folder: Path, out: Path) -> Quantization:
    """Make the file ``out``; what comes in between is in ``folder``."""
    settings, metadata = plan.settings, prepared.metadata
    read = functools.partial(read_inputs, cfg, seed=settings.seed, prepared=prepared)
    has_test = settings.eval_samples != 0
    # what is wrong with these data is told before the slow part
    test = read('test', settings.eval_samples) if has_test else ()
    images = (
        [inputs for inputs, _ in read('train', settings.num_samples)] if plan.ranges is None or not has_test else []
    )
    network, num_clipped = prepared.deployed, None
    if settings.clip_scales is not None:
        network, num_clipped = _clip(prepared.model, settings.clip_scales)
    # takes any batch size, whatever is asked for: single images and batches are run
    any_batch = replace(metadata, batch_size=None)
    float_path = folder / f'float{plan.source.suffixes[0]}'
    plan.source.write(network, float_path, replace(any_batch, precision='fp32'))
    int8 = _find_ranges(plan, float_path, images)

    reference = functools.partial(run_reference, prepared, simulate=plan.is_trained)
    kept: tuple[str, ...] = ()
    accuracy_all_int8 = None
    if settings.max_drop is not None:
        kept, accuracy_all_int8 = limit_drop(
            int8,
            folder / f'candidate{out.suffix}',
            any_batch,
            accuracy=measure_accuracy(reference, test),
            max_drop=settings.max_drop,
            calibration=images,
            test=test,
        )
    int8.write(out, metadata, kept)
    measured: Iterable[Batch] = test if has_test else [(inputs, None) for inputs in images]
    agreeing, right, right_reference = compare(load_file(out), reference, measured)
    is_int8 = {layer: can_be_int8 and layer not in kept for layer, can_be_int8 in int8.layers.items()}
    size = plan.row.measure_size(out)
    return Quantization(
        metadata=metadata,
        int8_layers=tuple(layer for layer in is_int8 if is_int8[layer]),
        float_layers=tuple(layer for layer in is_int8 if not is_int8[layer]),
        granularity=plan.granularity,
        reference='training' if plan.is_trained else 'float32',
        accuracy_reference=right_reference.percent if has_test else None,
        accuracy_all_int8=accuracy_all_int8,
        accuracy=right.percent if has_test else None,
        agreement=agreeing.percent,
        num_images=agreeing.num_images,
        images='test' if has_test else 'train',
        num_calibration=0 if plan.ranges is not None else sum(map(len, images)),
        size=size,
        size_ratio=plan.source.measure_size(float_path) / size,
        was_switched=prepared.was_switched,
        num_clipped=num_clipped,
    )


def _find_ranges(plan: Plan, path: Path, images: Sequence[np.ndarray]) -> Int8Model:
    """Calibrate the float32 file ``path`` on ``images``, or take the ranges that are given."""
    if plan.ranges is not None:
        return plan.quantizer.use_ranges(path, plan.ranges, granularity=plan.granularity)
    return plan.quantizer.calibrate(
        path, track(images, 'calibration'), granularity=plan.granularity, calibration=plan.settings.calibration
    )


def _clip(model: nn.Module, factor: float) -> tuple[nn.Module, int]:
    """The deploy form of ``model`` with limited scales, and the number of channels that were limited."""
    clipped = copy.deepcopy(model)
    num_clipped = clip_norm_scales(clipped, factor)
    return reparameterize(clipped, inplace=True), num_clipped

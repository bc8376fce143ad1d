"""Quantization: it writes an int8 file, and compares it with float32 before the file is put in place."""

import functools
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..runtimes.metadata import ExportMetadata
from ..runtimes.prepared import PreparedModel, prepare_model
from ..runtimes.quantizer import Ranges
from ..runtimes.table import find_format
from .candidates import Candidates
from .fallback import limit_drop
from .measuring import Batch, Half, compare, load_file, measure_accuracy, read_inputs, run_reference
from .plan import Plan, make_plan
from .settings import QuantizationSettings
from .trained import find_training


@dataclass(frozen=True)
class Quantization:
    """The result of a quantization.

    Attributes:
        metadata: Description of the file, which is stored in it.
        int8_layers: Names of the layers that are int8, as in the model.
        float_layers: Names of the other convolutions and linear layers.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
        reference: Reference of the comparison: ``'float32'``, or ``'training'`` for the int8 that quantization-aware
            training simulates.
        accuracy_reference: Top-1 accuracy of the reference on the test images, in percent. None without test images.
        accuracy_all_int8: Top-1 accuracy with all layers in int8, in percent. None if ``max_drop`` did not keep any in
            float32.
        accuracy: Top-1 accuracy of the file, in percent. None without test images.
        agreement: Percentage of images for which the file and the reference predict the same class.
        num_images: Number of images of the comparison.
        images: Split of these images, ``'test'`` or ``'train'``.
        num_calibration: Number of images on which the ranges were measured.
        size: Size of the file in bytes, with its .bin.
        size_ratio: Size of the same file in float32, divided by ``size``.
        was_switched: Whether the checkpoint was in train form.
        num_choosing: Number of other test images, on which ``max_drop`` chose the layers.
        num_equalized: Number of channels that were rescaled before.
        was_rounded: Whether the weights were rounded so that their errors make up for each other.
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
    num_choosing: int
    num_equalized: int
    was_rounded: bool


def quantize_model(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path,
    settings: QuantizationSettings | None = None,
    *,
    dynamic_batch: bool = True,
    batch_size: int = 1,
    dynamic_size: bool = False,
    with_preprocess: bool = False,
    softmax: bool = False,
    ema: bool = False,
    activation_ranges: Ranges | None = None,
) -> Quantization:
    """Write a checkpoint as an int8 file for a runtime.

    The quantizer runs training images through the test pipeline of the config, and so finds the ranges of the
    activations. A model of quantization-aware training needs no such images, if its checkpoint is in train form: the
    ranges of the training are taken, and the file is compared with the int8 that training simulates.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: Weights of the classifier, in either form.
        out: File to write, of a format that has int8. Its ending chooses the runtime.
        settings: Settings of the quantization. Default: ``QuantizationSettings()``.
        dynamic_batch: Whether the file takes any N, or only ``batch_size``.
        batch_size: Batch size of a file without dynamic batch.
        dynamic_size: Whether the file takes images of any height and width, too.
        with_preprocess: Whether the change to RGB and the normalisation are in the file.
        softmax: Whether the file gives probabilities instead of logits.
        ema: Whether the averaged weights are taken.
        activation_ranges: Smallest and largest value of the inputs of convolutions, by the names of the convolutions in
            the deploy form (``'backbone.stage_1.0'``). Only these convolutions are quantized then, with exactly these
            ranges: uint8 inputs, and int8 weights with the scale ``max(abs(weight)) / 127`` of each channel or of the
            whole weight. Nothing is calibrated.

    Raises:
        ValueError: If the format, the settings, ``activation_ranges`` and the model do not fit together, if the
            classifier gives an image several labels, or if the data can't be read.
        MissingPackageError: If a package is not installed.
        CheckpointError: If the checkpoint can't be read, or does not fit.
        AccuracyError: If accuracy drops by more than ``max_drop``. Nothing is written.
    """
    settings = settings or QuantizationSettings()
    row = find_format(out)
    make_plan(row, settings, ranges=activation_ranges)
    row.check(dynamic_batch=dynamic_batch, dynamic_size=dynamic_size, with_preprocess=with_preprocess, softmax=softmax)
    row.require_packages(write=True)
    row.require_writable(out)
    prepared = prepare_model(
        cfg,
        checkpoint,
        input_size=None,
        batch_size=None if dynamic_batch else batch_size,
        dynamic_size=dynamic_size or row.any_size,
        precision='int8',
        with_preprocess=with_preprocess,
        softmax=softmax,
        ema=ema,
    )
    plan = make_plan(row, settings, trained=find_training(prepared.model), ranges=activation_ranges)
    plan.quantizer.require_packages(row)
    with tempfile.TemporaryDirectory() as folder, row.replacing(out) as temporary:
        return _quantize(cfg, prepared, plan, Path(folder), temporary)


def _quantize(cfg: Config, prepared: PreparedModel, plan: Plan, folder: Path, out: Path) -> Quantization:
    """Make the file ``out``, with temporary files in ``folder``."""
    settings, metadata = plan.settings, prepared.metadata
    read = functools.partial(read_inputs, cfg, seed=settings.seed, prepared=prepared)
    has_test = settings.eval_samples != 0
    # both are read before the slow part, which errors in the data would waste
    test = read('test', settings.eval_samples) if has_test else ()
    images = [inputs for inputs, _ in read('train', settings.num_samples)] if plan.needs_images or not has_test else []
    if settings.max_drop is not None and not any(True for _ in Half(test, 1)):
        raise ValueError('`max_drop` needs at least 2 test images: one to choose by, and one to report')
    candidates = Candidates(prepared, plan, images, folder)
    reference = functools.partial(run_reference, prepared, simulate=plan.is_trained)
    candidate, accuracy_all_int8, num_choosing = candidates.best, None, 0
    kept: tuple[str, ...] = ()
    if settings.max_drop is not None:
        choosing, test = Half(test, 0), Half(test, 1)
        run = candidates.write(candidate)
        agreeing, right, right_reference = compare(run, reference, choosing)
        num_choosing = agreeing.num_images
        # two percentages have rounding errors
        if right_reference.percent - right.percent > settings.max_drop + 1e-9:
            accuracy_all_int8 = measure_accuracy(run, test)
            # layers that stay in float32 need weights that are not rounded
            candidate = candidates.make(rounds=False)
            kept = limit_drop(
                candidate.int8,
                candidates.path,
                candidates.metadata,
                accuracy=right_reference.percent,
                max_drop=settings.max_drop,
                calibration=images,
                test=choosing,
            )
    candidate.int8.write(out, metadata, kept)
    measured: Iterable[Batch] = test if has_test else [(inputs, None) for inputs in images]
    agreeing, right, right_reference = compare(load_file(out), reference, measured)
    is_int8 = {layer: can_be_int8 and layer not in kept for layer, can_be_int8 in candidate.int8.layers.items()}
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
        num_calibration=sum(map(len, images)) if plan.calibrates else 0,
        size=size,
        size_ratio=candidate.float_size / size,
        was_switched=prepared.was_switched,
        num_choosing=num_choosing,
        num_equalized=candidates.num_equalized,
        was_rounded=candidate.was_rounded,
    )

"""A checkpoint -> an int8 file, measured against float32 before it is kept."""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..models.norm_scales import clip_norm_scales
from ..progress import track
from ..reparam.switch import reparameterize
from ..runtimes.format import Format
from ..runtimes.loading import load_exported
from ..runtimes.metadata import ExportMetadata
from ..runtimes.network import ExportError
from ..runtimes.onnx import ONNX
from ..runtimes.prepared import PreparedModel, prepare_model
from ..runtimes.table import find_format
from .fallback import find_float_layers
from .measuring import BATCH_SIZE, FileInputs, measure_accuracy, measure_noise, run_file, run_reference
from .onnx_files import OnnxQuantizer
from .openvino_files import convert_onnx, list_layers, quantize_openvino, quantize_within_drop, save_quantized
from .settings import QuantizationSettings, check_quantization, find_quantizer, require_quantizer
from .trained import Training, find_training, resolve_granularity

# Layers are ranked on so many batches of the calibration images.
_NUM_RANKING = 4


class AccuracyError(ExportError):
    """int8 loses more accuracy than allowed, whichever layers stay in float32."""


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
    activation_ranges: Mapping[str, tuple[float, float]] | None = None,
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
        dynamic_batch: As of :func:`mmrepvgg.runtimes.export.export_model`, like the next four.
        batch_size: See there.
        with_preprocess: See there.
        softmax: See there.
        ema: See there.
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
    check_quantization(row, settings, dynamic_batch=dynamic_batch, with_preprocess=with_preprocess, softmax=softmax)
    row.require_packages(write=True)
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
    trained = find_training(prepared.model)
    settings = resolve_granularity(settings, trained)
    if activation_ranges is None and trained is not None:
        activation_ranges = trained.ranges
    if activation_ranges is not None and settings.max_drop is not None:
        raise ValueError(
            'max_drop goes with calibrated ranges, and these are given or trained ones; leave out --max-drop'
        )
    network, num_clipped = prepared.deployed, None
    if settings.clip_scales is not None:
        if trained is not None:
            raise ValueError(
                'clip_scales changes the weights that quantization-aware training has settled on, and its ranges with '
                'them; leave out --clip-scales'
            )
        network, num_clipped = _clip(prepared, settings.clip_scales)
    if activation_ranges is not None and (settings.quantizer == 'nncf' or settings.calibration != 'minmax'):
        raise ValueError(
            "given or trained ranges are taken as they are, by ONNX Runtime's quantizer for either format; leave out "
            '--quantizer nncf and --calibration'
        )
    # given ranges are for ONNX Runtime's quantizer, whose result OpenVINO reads
    quantizer = find_quantizer(row, settings) if activation_ranges is None else 'onnxruntime'
    require_quantizer(row, quantizer)
    with tempfile.TemporaryDirectory() as folder, row.replacing(out) as temporary:
        float_row = ONNX if quantizer == 'onnxruntime' else row
        job = _Job(cfg, prepared, network, float_row, settings, trained, Path(folder))
        if activation_ranges is not None:
            layers = job.write_with_ranges(temporary, activation_ranges)
        elif quantizer == 'onnxruntime':
            layers = job.write_calibrated(temporary)
        else:
            layers = job.write_by_nncf(temporary)
        return replace(job.measure(temporary, layers), num_clipped=num_clipped)


class _Job:
    """One quantization of ``network``, of which the float32 file and what comes in between is in ``folder``.

    Its writers give for each layer of the model whether it is int8.
    """

    def __init__(
        self,
        cfg: Config,
        prepared: PreparedModel,
        network: nn.Module,
        row: Format,
        settings: QuantizationSettings,
        trained: Training | None,
        folder: Path,
    ):
        self.prepared = prepared
        self.is_trained = trained is not None
        self.settings = settings
        self.folder = folder
        self.metadata = prepared.metadata
        self.train = FileInputs(cfg, 'train', settings.num_samples, settings.seed, prepared)
        self.test = FileInputs(cfg, 'test', settings.eval_samples, settings.seed, prepared)
        self.num_calibration = 0
        self.accuracy_reference: float | None = None
        self.accuracy_all_int8: float | None = None
        if settings.max_drop is not None:
            self.accuracy_reference = measure_accuracy(self._run_reference, self.test)
        elif settings.eval_samples != 0:
            next(iter(self.test))  # what is wrong with these data is told before the slow part
        # takes any batch size, whatever is asked for: calibration takes single images, and batches
        self.float_path = folder / f'float{row.suffixes[0]}'
        row.write(network, self.float_path, replace(self._any_batch(), precision='fp32'))

    def write_with_ranges(self, path: Path, ranges: Mapping[str, tuple[float, float]]) -> dict[str, bool]:
        quantizer = OnnxQuantizer(self.float_path, self.settings.granularity == 'per-channel')
        layers = {layer: layer in ranges for layer in quantizer.layers}
        quantizer.set_ranges(ranges)
        self._put(quantizer, path, self.metadata)
        return layers

    def write_calibrated(self, path: Path) -> dict[str, bool]:
        images = self._read_calibration()
        quantizer = OnnxQuantizer(self.float_path, self.settings.granularity == 'per-channel')
        quantizer.calibrate(track(images, 'calibration'), self.settings.calibration)
        kept: tuple[str, ...] = ()
        if self.settings.max_drop is not None:
            candidate = self.folder / f'candidate{path.suffix}'
            kept = self._find_float_layers(quantizer, images, candidate)
        self._put(quantizer, path, self.metadata, kept)
        return {layer: layer not in kept for layer in quantizer.layers}

    def _put(
        self, quantizer: OnnxQuantizer, path: Path, metadata: ExportMetadata, float_layers: Iterable[str] = ()
    ) -> None:
        if find_format(path) is ONNX:
            quantizer.write(path, metadata, float_layers)
        else:
            quantizer.write(self.folder / 'int8.onnx', self._any_batch(), float_layers)
            save_quantized(convert_onnx(self.folder / 'int8.onnx'), path, metadata)

    def _find_float_layers(
        self, quantizer: OnnxQuantizer, images: list[np.ndarray], candidate: Path
    ) -> tuple[str, ...]:
        tried = []

        def measure(float_layers: frozenset[str]) -> float:
            self._put(quantizer, candidate, self._any_batch(), float_layers)
            tried.append(measure_accuracy(run_file(load_exported(candidate)), self.test))
            return tried[-1]

        def run(float_layers: Iterable[str]) -> Tensor:
            self._put(quantizer, candidate, self._any_batch(), float_layers)
            exported = load_exported(candidate)
            return torch.cat([run_file(exported)(inputs) for inputs in images[:_NUM_RANKING]])

        def rank() -> Iterator[tuple[float, str]]:
            expected = run(quantizer.layers)
            for layer in track(quantizer.layers, 'ranking layers'):
                yield measure_noise(expected, run(set(quantizer.layers) - {layer})), layer

        self.accuracy_all_int8 = measure(frozenset())
        if self._is_enough(self.accuracy_all_int8):
            return ()
        ranked = [layer for _, layer in sorted(rank(), reverse=True)]
        kept = find_float_layers(ranked, lambda layers: self._is_enough(measure(layers)))
        if kept is None:
            raise self._tell_failure(max(tried))
        return kept

    def write_by_nncf(self, path: Path) -> dict[str, bool]:
        images = [image for inputs in self._read_calibration() for image in np.split(inputs, len(inputs))]
        model = quantize_openvino(self.float_path, images, self.settings)
        save_quantized(model, path, self.metadata)
        if self.settings.max_drop is not None:
            self.accuracy_all_int8 = accuracy = measure_accuracy(run_file(load_exported(path)), self.test)
            if not self._is_enough(accuracy):
                model = quantize_within_drop(self.float_path, images, self.settings, self.test, measure_accuracy)
                save_quantized(model, path, self.metadata)
                accuracy = measure_accuracy(run_file(load_exported(path)), self.test)
            if not (self._is_enough(accuracy) and any(list_layers(model).values())):
                raise self._tell_failure(accuracy)
        return list_layers(model)

    def measure(self, path: Path, layers: Mapping[str, bool]) -> Quantization:
        """Run the file on the images on which it was not made, if there are any."""
        run = run_file(load_exported(path))
        has_test = self.settings.eval_samples != 0
        num_images = agreeing = hits_reference = hits = 0
        for inputs, labels in self.test if has_test else self.train:
            expected, got = self._run_reference(inputs).argmax(1), run(inputs).argmax(1)
            agreeing += int((expected == got).sum())
            if labels is not None:
                hits_reference += int((expected == labels).sum())
                hits += int((got == labels).sum())
            num_images += len(inputs)
        size = find_format(path).measure_size(path)
        return Quantization(
            metadata=self.metadata,
            int8_layers=tuple(layer for layer, is_int8 in layers.items() if is_int8),
            float_layers=tuple(layer for layer, is_int8 in layers.items() if not is_int8),
            granularity=str(self.settings.granularity),
            reference='training' if self.is_trained else 'float32',
            accuracy_reference=100 * hits_reference / num_images if has_test else None,
            accuracy_all_int8=self.accuracy_all_int8,
            accuracy=100 * hits / num_images if has_test else None,
            agreement=100 * agreeing / num_images,
            num_images=num_images,
            images='test' if has_test else 'train',
            num_calibration=self.num_calibration,
            size=size,
            size_ratio=find_format(self.float_path).measure_size(self.float_path) / size,
            was_switched=self.prepared.was_switched,
        )

    def _any_batch(self) -> ExportMetadata:
        return replace(self.metadata, batch_size=None)

    def _read_calibration(self) -> list[np.ndarray]:
        total = -(-self.settings.num_samples // BATCH_SIZE)
        images = [inputs for inputs, _ in track(self.train, 'reading images', total)]
        self.num_calibration = sum(map(len, images))
        return images

    def _run_reference(self, inputs: np.ndarray) -> Tensor:
        return run_reference(self.prepared, inputs, simulate=self.is_trained)

    def _is_enough(self, accuracy: float) -> bool:
        assert self.accuracy_reference is not None
        assert self.settings.max_drop is not None
        # a difference of two percentages may be a hair off
        return self.accuracy_reference - accuracy <= self.settings.max_drop + 1e-9

    def _tell_failure(self, best: float) -> AccuracyError:
        return AccuracyError(
            f'int8 can not keep the top-1 accuracy within {self.settings.max_drop:g} points of float32: '
            f'{self.accuracy_reference:.2f}% in float32, {self.accuracy_all_int8:.2f}% with all layers in int8, '
            f'{best:.2f}% at best with some in float32; nothing was written. Allow a larger --max-drop, try '
            '--granularity per-channel or another --calibration, or train for quantization'
        )


def _clip(prepared: PreparedModel, factor: float) -> tuple[nn.Module, int]:
    """The deploy form with limited scales, and the number of channels that were; float32 is compared without."""
    if not prepared.was_switched:
        raise ValueError(
            'clip_scales limits the batch norms of the branches, and the checkpoint is in deploy form, which has none; '
            'give the train-form checkpoint from which it was made'
        )
    clipped = copy.deepcopy(prepared.model)
    num_clipped = clip_norm_scales(clipped, factor)
    return reparameterize(clipped, inplace=True), num_clipped

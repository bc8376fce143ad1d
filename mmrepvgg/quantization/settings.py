"""How a model is quantized, and what each format's library can do. Imports no torch, so that the tools are fast."""

from dataclasses import dataclass
from importlib.util import find_spec

from ..runtimes.format import Format, MissingPackageError
from ..runtimes.onnx import ONNX

# One scale for the whole of a weight, or one for each output channel.
GRANULARITIES = ('per-tensor', 'per-channel')

# Whose quantizer makes the files of a format, the default first. OpenVINO reads what ONNX Runtime's gives.
QUANTIZERS = {'ONNX': ('onnxruntime',), 'OpenVINO': ('nncf', 'onnxruntime')}
ALL_QUANTIZERS = tuple(dict.fromkeys(name for names in QUANTIZERS.values() for name in names))

# How the range of an activation is found: what each quantizer has.
CALIBRATIONS = {
    'onnxruntime': ('minmax', 'entropy', 'percentile'),
    'nncf': ('minmax', 'percentile'),
}
ALL_CALIBRATIONS = tuple(dict.fromkeys(method for methods in CALIBRATIONS.values() for method in methods))


@dataclass(frozen=True)
class QuantizationSettings:
    """How a model is quantized.

    Attributes:
        granularity: ``'per-channel'``, one scale for each output channel of a weight, or ``'per-tensor'``, one for the
            whole. None: what the model was trained for, and per-channel if it was not trained for int8.
        calibration: ``'minmax'``: the smallest and largest value that was seen. ``'entropy'``: the range that loses
            least information. ``'percentile'``: without the outermost values.
        quantizer: One of ``QUANTIZERS`` for the format; None: the first of them.
        clip_scales: Before the branches are fused, limit the scales of their batch norms to so many times their median,
            see :func:`mmrepvgg.clip_norm_scales`. None: not.
        num_samples: How many training images to calibrate on, at most.
        seed: Of their choice.
        max_drop: Largest allowed loss of top-1 accuracy in points; layers stay in float32 until it is met. None: any.
        eval_samples: How many test images to measure the accuracy on. None: all; 0: none, and then no accuracy.

    Raises:
        ValueError: If a value is none of those.
    """

    granularity: str | None = None
    calibration: str = 'minmax'
    num_samples: int = 300
    seed: int = 0
    max_drop: float | None = None
    eval_samples: int | None = None
    quantizer: str | None = None
    clip_scales: float | None = None

    def __post_init__(self) -> None:
        if self.granularity not in (None, *GRANULARITIES):
            raise ValueError(f'granularity must be one of {", ".join(GRANULARITIES)}, got {self.granularity!r}')
        if self.calibration not in ALL_CALIBRATIONS:
            raise ValueError(f'calibration must be one of {", ".join(ALL_CALIBRATIONS)}, got {self.calibration!r}')
        if self.quantizer not in (None, *ALL_QUANTIZERS):
            raise ValueError(f'quantizer must be one of {", ".join(ALL_QUANTIZERS)}, got {self.quantizer!r}')
        if self.clip_scales is not None and not self.clip_scales >= 1:
            raise ValueError(f'clip_scales must be at least 1, or None, got {self.clip_scales}')
        if self.num_samples < 1:
            raise ValueError(f'num_samples must be at least 1, got {self.num_samples}')
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ValueError(f'max_drop must be points of accuracy, 0 to 100, got {self.max_drop}')
        if self.eval_samples is not None and self.eval_samples < 0:
            raise ValueError(f'eval_samples must not be negative, got {self.eval_samples}')
        if self.max_drop is not None and self.eval_samples == 0:
            raise ValueError('max_drop takes test images to measure it on, got eval_samples 0')


def check_quantization(row: Format, settings: QuantizationSettings, **options: bool) -> None:
    """Check that files of a format can be int8, calibrated in this way and with every option.

    Raises:
        ValueError: If not; the message names what can be had.
    """
    if row.name not in QUANTIZERS:
        raise ValueError(f'int8 files can be {", ".join(QUANTIZERS)}, got {row.name}')
    if settings.quantizer not in (None, *QUANTIZERS[row.name]):
        raise ValueError(
            f'the quantizer of {row.name} files must be one of {", ".join(QUANTIZERS[row.name])}, '
            f'got {settings.quantizer}'
        )
    quantizer = find_quantizer(row, settings)
    if settings.calibration not in CALIBRATIONS[quantizer]:
        raise ValueError(
            f'the calibration of {row.name} files by {quantizer} must be one of '
            f'{", ".join(CALIBRATIONS[quantizer])}, got {settings.calibration}'
        )
    row.check(**options)  # type: ignore[arg-type]


def find_quantizer(row: Format, settings: QuantizationSettings) -> str:
    """The quantizer that makes files of this format."""
    return settings.quantizer or QUANTIZERS[row.name][0]


def require_quantizer(row: Format, quantizer: str) -> None:
    """Say which packages the int8 files of a format lack, without importing them.

    Raises:
        MissingPackageError: If one is not installed.
    """
    row.require_packages(write=True)
    if quantizer == 'onnxruntime':
        ONNX.require_packages(write=True)
    elif find_spec('nncf') is None:
        raise MissingPackageError(
            'int8 OpenVINO files take nncf, not installed here: pip install "mmrepvgg[quantization]"'
        )

"""The settings of a quantization. Imports no torch, so that commands answer at once."""

from dataclasses import dataclass

from ..models.fake_quant_settings import GRANULARITIES
from ..runtimes.table import list_calibrations, list_quantizers


@dataclass(frozen=True)
class QuantizationSettings:
    """The settings of a quantization.

    Attributes:
        granularity: ``'per-channel'`` for one scale for each output channel of a weight, or ``'per-tensor'`` for one
            scale for the whole weight. Default: the granularity of quantization-aware training; for other models
            per-channel.
        calibration: Method that finds the ranges of the activations. ``'minmax'`` takes the smallest and largest value,
            ``'entropy'`` the range that loses least information, ``'percentile'`` leaves out the outermost values,
            ``'histogram'`` the range with the smallest error.
            ``'dynamic'`` needs no images: the runtime finds the ranges of each image that it gets.
        num_samples: Largest number of training images for the calibration.
        seed: Seed of the draw of images.
        max_drop: Largest allowed drop of top-1 accuracy in points. As many layers as needed stay in float32. They are
            chosen on one half of the test images, and the accuracy is measured on the other half. Default: no limit,
            and all layers are int8.
        eval_samples: Number of test images on which the accuracy is measured. Default: all. With 0 no accuracy is
            measured.
        quantizer: Name of a quantizer of the format. Default: the first one.
        equalize: Whether channels are rescaled first (:func:`mmrepvgg.equalize`), by the calibration images. Default:
            with per-tensor granularity. Without such images, by the weights alone.
        adaptive_rounding: Whether the weights are rounded so that their errors make up for each other, instead of each
            to the nearest step. Default: if the quantizer allows it, and the ranges are calibrated.

    Raises:
        ValueError: If a value is not allowed.
    """

    granularity: str | None = None
    calibration: str = 'minmax'
    num_samples: int = 300
    seed: int = 0
    max_drop: float | None = None
    eval_samples: int | None = None
    quantizer: str | None = None
    equalize: bool | None = None
    adaptive_rounding: bool | None = None

    def __post_init__(self) -> None:
        for name, allowed in dict(
            granularity=GRANULARITIES, calibration=list_calibrations(), quantizer=list_quantizers()
        ).items():
            value = getattr(self, name)
            if value not in allowed and (value is not None or name == 'calibration'):
                raise ValueError(f'`{name}` must be one of {", ".join(allowed)}, got {value!r}')
        if self.num_samples < 1:
            raise ValueError(f'`num_samples` must be at least 1, got {self.num_samples}')
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ValueError(f'`max_drop` must be points of accuracy, 0 to 100, got {self.max_drop}')
        if self.eval_samples is not None and self.eval_samples < 0:
            raise ValueError(f'`eval_samples` must not be negative, got {self.eval_samples}')
        if self.max_drop is not None and self.eval_samples == 0:
            raise ValueError('`max_drop` needs test images, got `eval_samples` 0')

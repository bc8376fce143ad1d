"""How a model is to be quantized: what the user asks. Imports no torch, so that commands answer at once."""

from dataclasses import dataclass

from ..models.fake_quant_settings import GRANULARITIES
from ..runtimes.table import list_calibrations, list_quantizers


@dataclass(frozen=True)
class QuantizationSettings:
    """How a model is quantized.

    Attributes:
        granularity: ``'per-channel'``, one scale for each output channel of a weight, or ``'per-tensor'``, one for the
            whole. None: what the model was trained for, and per-channel if it was not trained for int8.
        calibration: ``'minmax'``: the smallest and largest value that was seen. ``'entropy'``: the range that loses
            least information. ``'percentile'``: without the outermost values.
        num_samples: How many training images to calibrate on, at most.
        seed: Of their choice.
        max_drop: Largest allowed loss of top-1 accuracy in points; layers stay in float32 until it is met. None: any.
        eval_samples: How many test images to measure the accuracy on. None: all; 0: none, and then no accuracy.
        quantizer: Name of one of the format's quantizers; None: the first of them.
        clip_scales: Before the branches are fused, limit the scales of their batch norms to so many times their median,
            as :func:`mmrepvgg.clip_norm_scales` does. None leaves them as they are.

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
        for name, allowed in dict(
            granularity=GRANULARITIES, calibration=list_calibrations(), quantizer=list_quantizers()
        ).items():
            value = getattr(self, name)
            if value not in allowed and (value is not None or name == 'calibration'):
                raise ValueError(f'`{name}` must be one of {", ".join(allowed)}, got {value!r}')
        if self.clip_scales is not None and not self.clip_scales >= 1:
            raise ValueError(f'`clip_scales` must be at least 1, or None, got {self.clip_scales}')
        if self.num_samples < 1:
            raise ValueError(f'`num_samples` must be at least 1, got {self.num_samples}')
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ValueError(f'`max_drop` must be points of accuracy, 0 to 100, got {self.max_drop}')
        if self.eval_samples is not None and self.eval_samples < 0:
            raise ValueError(f'`eval_samples` must not be negative, got {self.eval_samples}')
        if self.max_drop is not None and self.eval_samples == 0:
            raise ValueError('`max_drop` takes test images to measure it on, got `eval_samples` 0')

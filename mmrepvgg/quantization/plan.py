"""The plan of a quantization, which is checked before slow work. Imports no torch, so that commands answer at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runtimes.format import Format
from ..runtimes.quantizer import Quantizer, Ranges
from ..runtimes.table import FORMATS
from .settings import QuantizationSettings

if TYPE_CHECKING:
    from .trained import Training


@dataclass(frozen=True)
class Plan:
    """The way in which a file is made.

    Attributes:
        row: Format of the file.
        quantizer: Quantizer that makes the file.
        source: Format of the float32 file from which the quantizer starts.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
        ranges: Ranges of the inputs of convolutions. None means that they are calibrated.
        is_trained: Whether the model was trained for int8. The file is then compared with simulated int8.
        equalizes: Whether channels are rescaled before.
        rounds_adaptively: Whether the weights are rounded before, so that their errors make up for each other.
        settings: Settings of the user.
    """

    row: Format
    quantizer: Quantizer
    source: Format
    granularity: str
    ranges: Ranges | None
    is_trained: bool
    equalizes: bool
    rounds_adaptively: bool
    settings: QuantizationSettings

    @property
    def calibrates(self) -> bool:
        """Whether images give the ranges of the activations."""
        return self.ranges is None and self.settings.calibration not in self.quantizer.without_images

    @property
    def needs_images(self) -> bool:
        """Whether training images are needed: for ranges, to round the weights, or to rank the layers."""
        return self.calibrates or self.rounds_adaptively or self.settings.max_drop is not None


def make_plan(
    row: Format,
    settings: QuantizationSettings,
    *,
    trained: 'Training | None' = None,
    ranges: Ranges | None = None,
) -> Plan:
    """Decide how int8 files of a format are made.

    Args:
        row: Format of the files.
        settings: Settings of the user.
        trained: The int8 for which the model was trained, if it was.
        ranges: Ranges of the inputs of convolutions. Default: those of the training; without training they are
            calibrated.

    Raises:
        ValueError: If the format, the settings and the model do not fit together. The message says what is possible.
    """
    if trained is not None and ranges is None:
        ranges = trained.ranges
    if ranges is not None and settings.max_drop is not None:
        raise ValueError('`max_drop` needs calibrated ranges, but the ranges are given or trained; leave it out')
    quantizer = _choose_quantizer(row, settings, takes_ranges=ranges is not None)
    for name in ('equalize', 'adaptive_rounding'):
        if getattr(settings, name) and ranges is not None:
            raise ValueError(f'`{name}` changes the activations, but their ranges are given or trained; leave it out')
    if settings.adaptive_rounding and not quantizer.keeps_rounded:
        names = [quantizer.name for quantizer in row.quantizers if quantizer.keeps_rounded]
        raise ValueError(
            f'`adaptive_rounding` needs a `quantizer` that keeps rounded weights, {", ".join(names)}, got '
            f'{quantizer.name}; leave it out'
        )
    if trained is not None and settings.granularity not in (None, trained.granularity):
        raise ValueError(
            f'`granularity` must be {trained.granularity}, for which the model was trained, got '
            f'{settings.granularity}; leave it out'
        )
    granularity = settings.granularity or (trained.granularity if trained else 'per-channel')
    has_freedom = ranges is None
    calibrates = has_freedom and settings.calibration not in quantizer.without_images
    return Plan(
        row,
        quantizer,
        quantizer.source or row,
        granularity,
        ranges,
        trained is not None,
        _decide(settings.equalize, has_freedom and granularity == 'per-tensor'),
        _decide(settings.adaptive_rounding, calibrates and quantizer.keeps_rounded),
        settings,
    )


def _decide(asked: bool | None, default: bool) -> bool:
    return default if asked is None else asked


def _choose_quantizer(row: Format, settings: QuantizationSettings, *, takes_ranges: bool) -> Quantizer:
    if not row.quantizers:
        raise ValueError(
            f'int8 files can be {", ".join(row.name for row in FORMATS if row.quantizers)}, got {row.name}'
        )
    names = [quantizer.name for quantizer in row.quantizers]
    if settings.quantizer not in (None, *names):
        raise ValueError(
            f'the `quantizer` of {row.name} files must be one of {", ".join(names)}, got {settings.quantizer}'
        )
    takers = [quantizer for quantizer in row.quantizers if quantizer.takes_ranges or not takes_ranges]
    if not takers:
        others = [other.name for other in FORMATS if any(quantizer.takes_ranges for quantizer in other.quantizers)]
        raise ValueError(
            f'given or trained ranges need a file of another format, {", ".join(others)}: no quantizer of {row.name} '
            'files takes them'
        )
    chosen = next((quantizer for quantizer in takers if settings.quantizer in (None, quantizer.name)), None)
    if takes_ranges and (chosen is None or settings.calibration != 'minmax'):
        raise ValueError(
            f'given or trained ranges need no `calibration`, and for {row.name} files the `quantizer` that takes them '
            f'is {", ".join(quantizer.name for quantizer in takers)}; leave out both'
        )
    assert chosen is not None
    if settings.calibration not in chosen.calibrations:
        raise ValueError(
            f'the `calibration` of {row.name} files by {chosen.name} must be one of {", ".join(chosen.calibrations)}, '
            f'got {settings.calibration}'
        )
    return chosen

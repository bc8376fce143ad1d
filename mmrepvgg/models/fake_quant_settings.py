"""The settings of quantization-aware training. Imports no torch, so that the command line can name them at once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# One scale for a whole kernel, or one for each of its output channels.
GRANULARITIES = ('per-tensor', 'per-channel')
RANGES = ('observed', 'learned')


@dataclass(frozen=True)
class FakeQuantization:
    """Settings with which a block simulates int8.

    Attributes:
        granularity: ``'per-channel'`` for one scale for each output channel of a kernel, or ``'per-tensor'`` for one
            scale for the whole kernel.
        ranges: ``'observed'`` for activation ranges that are moving averages of the batches' minima and maxima, or
            ``'learned'`` for ranges that are trained by gradient.
        momentum: Weight of a new batch in the moving average. Learned ranges do not use it.

    Raises:
        ValueError: If a value is out of range.
    """

    granularity: str = 'per-channel'
    ranges: str = 'observed'
    momentum: float = 0.01

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> 'FakeQuantization':
        """Read the argument ``quantization`` of a backbone.

        Raises:
            TypeError: If ``cfg`` is no dict.
            ValueError: If a key is unknown, or a value is out of range.
        """
        if not isinstance(cfg, Mapping):
            raise TypeError(f"quantization must be a dict such as dict(granularity='per-channel') or None, got {cfg!r}")
        names = [field.name for field in fields(cls)]
        if unknown := [key for key in cfg if key not in names]:
            raise ValueError(f'the keys of quantization must be among {", ".join(names)}, got {unknown[0]!r}')
        return cls(**cfg)

    def __post_init__(self) -> None:
        for name, allowed in dict(granularity=GRANULARITIES, ranges=RANGES).items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'{name} of quantization must be one of {", ".join(allowed)}, got {getattr(self, name)!r}'
                )
        if not 0 < self.momentum <= 1:
            raise ValueError(f'momentum of quantization must be above 0 and at most 1, got {self.momentum!r}')

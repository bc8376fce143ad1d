"""Fake quantization: training sees the rounding of int8 that the exported file will have.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (CVPR
2018, arXiv:1712.05877), applied to the equivalent kernel of a block, as RepVGG's authors advise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from .forms import INPUT_QUANTIZER
from .int8 import MAX_UINT8, fake_quantize_activations

GRANULARITIES = ('per-channel', 'per-tensor')
RANGES = ('observed', 'learned')


@dataclass(frozen=True)
class FakeQuantization:
    """How a block simulates int8.

    Attributes:
        granularity: ``'per-channel'``, one scale for each output channel of a kernel, or ``'per-tensor'``, one for all.
        ranges: The activations' ranges are ``'observed'`` (moving averages of the batches' minima and maxima) or
            ``'learned'`` by gradient.
        momentum: What a new batch counts for in the moving average. Not used by learned ranges.
    """

    granularity: str = 'per-channel'
    ranges: str = 'observed'
    momentum: float = 0.01

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> 'FakeQuantization':
        """Read the argument ``quantization`` of a block.

        Raises:
            TypeError: If ``cfg`` is no dict.
            ValueError: If it has an unknown key, or a value is out of range.
        """
        if not isinstance(cfg, Mapping):
            raise TypeError(f"quantization must be a dict such as dict(granularity='per-channel') or None, got {cfg!r}")
        names = [field.name for field in fields(cls)]
        if unknown := [key for key in cfg if key not in names]:
            raise ValueError(f'the keys of quantization must be among {", ".join(names)}, got {unknown[0]!r}')
        return cls(**cfg)

    def __post_init__(self):
        for name, allowed in dict(granularity=GRANULARITIES, ranges=RANGES).items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'{name} of quantization must be one of {", ".join(allowed)}, got {getattr(self, name)!r}'
                )
        if not 0 < self.momentum <= 1:
            raise ValueError(f'momentum of quantization must be above 0 and at most 1, got {self.momentum!r}')


def convolve(
    x: Tensor, kernel: Tensor, bias: Tensor, *, stride: int, padding: int, dilation: int, groups: int, padding_mode: str
) -> Tensor:
    """What an ``nn.Conv2d`` with these weights and arguments computes."""
    if padding_mode != 'zeros':
        x = F.pad(x, [padding, padding, padding, padding], padding_mode)
        padding = 0
    return F.conv2d(x, kernel, bias, stride, padding, dilation, groups)


class ActivationQuantizer(nn.Module):
    """Round a tensor to the grid of uint8 between a minimum and a maximum (:func:`find_uint8_grid`).

    In train mode each batch moves the range before it is used: the first one sets it, later ones by moving average
    (not finite ones, as of an overflow under mixed precision, are left out). In distributed runs the batch's range is
    that over all processes. While nothing was observed, in eval mode, the input goes through as it is.

    Learned ranges are set by the first batch and then trained as parameters, as in LSQ (Esser et al., ICLR 2020,
    arXiv:1902.08153; LSQ+, arXiv:2004.09576, for the zero point): gradients go straight through the rounding, and are
    scaled by ``1 / sqrt(values per image * 255)``.

    Args:
        learned: Train the range by gradient.
        momentum: What a new batch counts for in the moving average.

    Attributes:
        min_value, max_value (Tensor): The range, scalars; buffers, or parameters when learned. ``inf`` and ``-inf``
            before the first batch.
        enabled (bool): Whether the block simulates int8 at all; see :func:`set_fake_quantization`.
        observes (bool): Whether batches move an observed range in train mode.
    """

    min_value: Tensor
    max_value: Tensor

    def __init__(self, learned: bool = False, momentum: float = 0.01):
        super().__init__()
        self.learned = learned
        self.momentum = momentum
        self.enabled = True
        self.observes = True
        self._was_observed = False
        for name, value in dict(min_value=torch.inf, max_value=-torch.inf).items():
            if learned:
                self.register_parameter(name, nn.Parameter(torch.tensor(value)))
            else:
                self.register_buffer(name, torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape and floating dtype -> the same, on the grid."""
        if self.training and self.observes and not (self.learned and self._has_range()):
            self.observe(x, self.momentum)
        elif not self.is_observed:
            return x
        values = x if x.dtype == torch.float64 else x.float()
        if self.learned:
            return self._quantize_learned(values).to(x.dtype)
        return fake_quantize_activations(values, *self.get_range()).to(x.dtype)

    @property
    def is_observed(self) -> bool:
        """Whether there is a range."""
        return bool(self.min_value <= self.max_value)

    def _has_range(self) -> bool:
        # once there is one it stays, and a GPU need not be waited for again
        self._was_observed = self._was_observed or self.is_observed
        return self._was_observed

    @torch.no_grad()
    def observe(self, x: Tensor, momentum: float) -> None:
        """Move the range towards that of ``x``; the first time, to it."""
        low, high = torch.aminmax(x)
        batch = torch.stack([-low, high]).to(self.min_value.dtype)
        all_reduce(batch, 'max')
        low, high = -batch[0], batch[1]
        is_first, is_finite = self.min_value > self.max_value, batch.isfinite().all()
        for value, new in ((self.min_value, low), (self.max_value, high)):
            # without a branch in Python, for which a GPU would have to be waited for
            moved = torch.where(is_first, new, value + momentum * (new - value))
            value.copy_(torch.where(is_finite, moved, value))

    def get_range(self) -> tuple[Tensor, Tensor]:
        """The range that the grid covers, 0 included: minimum and maximum, scalars."""
        return self.min_value.clamp(max=0), self.max_value.clamp(min=0)

    def _quantize_learned(self, x: Tensor) -> Tensor:
        share = (x[0].numel() * MAX_UINT8) ** -0.5
        low, high = (_scale_gradient(bound, share) for bound in self.get_range())
        scale = (high - low) / MAX_UINT8
        # as find_uint8_grid has it for a range of zero width
        scale = torch.where(scale >= torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))
        zero_point = _round_straight_through(-low / scale)
        steps = (_round_straight_through(x / scale) + zero_point).clamp(0, MAX_UINT8)
        return (steps - zero_point) * scale


def _round_straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """``x`` itself; its gradient times ``factor``."""
    scaled = x * factor
    return scaled + (x - scaled).detach()


def find_quantizers(model: nn.Module) -> dict[str, ActivationQuantizer]:
    """The activation quantizers in ``model`` by their module paths; none unless it is trained quantization-aware."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}


def set_fake_quantization(model: nn.Module, enabled: bool) -> None:
    """Let all blocks simulate int8, or compute in floating point as without quantization-aware training."""
    for quantizer in find_quantizers(model).values():
        quantizer.enabled = enabled


def get_activation_ranges(model: nn.Module) -> dict[str, tuple[float, float]]:
    """The trained range of each convolution's input, for quantizing the exported file with the same grids.

    Args:
        model: A model in train form with quantization-aware blocks.

    Returns:
        dict[str, tuple[float, float]]: Minimum (0 or below) and maximum (0 or above) by the path of the block, for
        example ``'backbone.stage_1.0'``. Empty without such blocks.

    Raises:
        ValueError: If a range was never observed.
    """
    ranges = {}
    for name, quantizer in find_quantizers(model).items():
        if not quantizer.is_observed:
            raise ValueError(
                f'{name} has observed no input yet, so that there is no range; run the model in train mode first, or '
                'train with QuantizationAwareHook'
            )
        low, high = quantizer.get_range()
        ranges[name.removesuffix(f'.{INPUT_QUANTIZER}')] = low.item(), high.item()
    return ranges

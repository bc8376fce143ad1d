"""The quantizer of a block's input in quantization-aware training, and the quantizers of a whole model."""

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from .forms import INPUT_QUANTIZER
from .int8 import MAX_UINT8, fake_quantize_activations


class ActivationQuantizer(nn.Module):
    """Round a tensor to the grid of uint8 between a minimum and a maximum (:func:`find_uint8_grid`).

    In train mode each batch moves the range before it is used: the first one sets it, later ones move it by moving
    average. Batches that are not finite, as of an overflow under mixed precision, are left out. In distributed runs the
    batch's range is that over all processes. In eval mode, while nothing was observed, the input goes through as it is.

    Learned ranges are set by the first batch and then trained as parameters, as in LSQ (Esser et al., ICLR 2020,
    arXiv:1902.08153; LSQ+, arXiv:2004.09576, for the zero point): gradients go straight through the rounding, and are
    scaled by ``1 / sqrt(values per image * 255)``.

    Args:
        learned: Train the range by gradient.
        momentum: What a new batch counts for in the moving average.

    Attributes:
        min_value, max_value (Tensor): The range, scalars; buffers, or parameters when learned. ``inf`` and ``-inf``
            before the first batch.
        enabled (bool): Whether the block simulates int8 at all, as :func:`set_fake_quantization` sets it.
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
        if not self.enabled:
            return x
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

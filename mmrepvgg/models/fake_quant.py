"""The quantizer of a block's input in quantization-aware training, and the quantizers of a whole model."""

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from .forms import INPUT_QUANTIZER
from .int8 import MAX_UINT8, fake_quantize_activations


class ActivationQuantizer(nn.Module):
    """Round a tensor to the 256 values of uint8 between a minimum and a maximum.

    In train mode the first batch sets the range, and later ones move it by moving average, before it is used. A batch
    that is not finite (an overflow under mixed precision) is left out. In distributed runs the batches of all processes
    count as one. In eval mode a quantizer without a range returns its input.

    A learned range is set by the first batch and then trained as two parameters, as in LSQ (Esser et al., ICLR 2020,
    arXiv:1902.08153; for the zero point LSQ+, arXiv:2004.09576): gradients go straight through the rounding, and are
    scaled by ``1 / sqrt(values per image * 255)``.

    Args:
        learned: Train the range by gradient.
        momentum: Weight of a new batch in the moving average.

    Attributes:
        min_value, max_value (Tensor): Bounds of the range, scalars: buffers, or parameters of a learned range. Before
            the first batch they are ``inf`` and ``-inf``.
        enabled (bool): Whether the quantizer rounds. If it does not, its block computes in floating point.
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
        """Round ``x``, of any shape and floating dtype, to the grid."""
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
        # A range never goes away again. Asking the tensors each time would wait for the GPU.
        self._was_observed = self._was_observed or self.is_observed
        return self._was_observed

    @torch.no_grad()
    def observe(self, x: Tensor, momentum: float) -> None:
        """Move the range towards the minimum and maximum of ``x``. The first call sets it to them."""
        low, high = torch.aminmax(x)
        batch = torch.stack([-low, high]).to(self.min_value.dtype)
        all_reduce(batch, 'max')
        low, high = -batch[0], batch[1]
        is_first, is_finite = self.min_value > self.max_value, batch.isfinite().all()
        for value, new in ((self.min_value, low), (self.max_value, high)):
            # torch.where, since an ``if`` in Python would wait for the GPU
            moved = torch.where(is_first, new, value + momentum * (new - value))
            value.copy_(torch.where(is_finite, moved, value))

    def get_range(self) -> tuple[Tensor, Tensor]:
        """Minimum and maximum of the grid, scalars. The grid always includes 0."""
        return self.min_value.clamp(max=0), self.max_value.clamp(min=0)

    def _quantize_learned(self, x: Tensor) -> Tensor:
        share = (x[0].numel() * MAX_UINT8) ** -0.5
        low, high = (_scale_gradient(bound, share) for bound in self.get_range())
        scale = (high - low) / MAX_UINT8
        # a range of zero width has the scale 1, as in find_uint8_grid
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
    """The activation quantizers of ``model`` by their module paths. Only quantization-aware training has some."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}


def set_fake_quantization(model: nn.Module, enabled: bool) -> None:
    """Let all blocks of ``model`` simulate int8, or let them compute in floating point."""
    for quantizer in find_quantizers(model).values():
        quantizer.enabled = enabled


def get_activation_ranges(model: nn.Module) -> dict[str, tuple[float, float]]:
    """The trained range of each convolution's input, for quantizing the exported file with the same grids.

    Args:
        model: A model in train form with quantization-aware blocks.

    Returns:
        dict[str, tuple[float, float]]: Minimum (0 or below) and maximum (0 or above) by the path of the block, for
        example ``'backbone.stage_1.0'``. The dict is empty if there are no such blocks.

    Raises:
        ValueError: If a quantizer has no range yet.
    """
    ranges = {}
    for name, quantizer in find_quantizers(model).items():
        if not quantizer.is_observed:
            raise ValueError(
                f'{name} has observed no input yet and has no range; run the model in train mode first, or train it '
                'with QuantizationAwareHook'
            )
        low, high = quantizer.get_range()
        ranges[name.removesuffix(f'.{INPUT_QUANTIZER}')] = low.item(), high.item()
    return ranges

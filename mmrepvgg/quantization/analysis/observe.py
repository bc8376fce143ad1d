"""The ranges and distributions of kernels and activations. Of activations only counts stay in memory."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.blocks import RepVGGBlock
from ...models.fusion import get_norm_scale_shift
from .points import find_points, intercept, to_channels
from .results import Activations, Kernel, Norm

PERCENTILE = 0.9999
NUM_QUANTILES = 33
_BRANCHES = {'branch_3x3': '3x3', 'branch_1x1': '1x1', 'branch_norm': 'identity'}
_TINY = torch.finfo(torch.float32).tiny

# The first bits of a float32 (exponent and six of the mantissa) are the number of its bin. Bins are ordered by
# value, and at most 1.6% wide.
_BIN_SHIFT = 23 - 6
_NUM_BINS = 1 << (31 - _BIN_SHIFT)


class Observer:
    """The minimum, maximum and distribution of a tensor, collected over batches."""

    def __init__(self) -> None:
        self.low = float('inf')
        self.high = -float('inf')
        self.counts = torch.zeros(_NUM_BINS, dtype=torch.int64)
        self.channel_maxima: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Add a batch ``(N, C, ...)``.

        Raises:
            ValueError: If a value is not finite.
        """
        low, high = (value.item() for value in x.aminmax())
        if not (abs(low) < float('inf') and abs(high) < float('inf')):  # true for NaN too
            raise ValueError('the activations of the model are not finite; its training has diverged')
        self.low, self.high = min(self.low, low), max(self.high, high)
        magnitudes = x.detach().float().abs().contiguous()
        self.counts += torch.bincount((magnitudes.view(torch.int32) >> _BIN_SHIFT).flatten(), minlength=_NUM_BINS)
        maxima = magnitudes.transpose(0, 1).flatten(1).amax(1)
        self.channel_maxima = maxima if self.channel_maxima is None else self.channel_maxima.maximum(maxima)

    def summarise(self) -> Activations:
        assert self.channel_maxima is not None, 'no batch was seen'
        cumulated = self.counts.cumsum(0)
        number = int((cumulated < math.ceil(PERCENTILE * int(cumulated[-1]))).sum())
        # the first bin has the zeros
        edge = torch.tensor((number + 1) << _BIN_SHIFT, dtype=torch.int32).view(torch.float32).item() if number else 0.0
        largest = max(abs(self.low), abs(self.high))
        return Activations(self.low, self.high, min(edge, largest), measure_spread(self.channel_maxima))


@torch.no_grad()
def observe_activations(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Activations]:
    """Run ``model`` and describe its tensors.

    Args:
        model: Classifier in deploy form and eval mode.
        batches: Normalised images ``(N, C, H, W)``.

    Returns:
        dict: Activations by the names of :func:`find_points`, in the order in which the network computes them.

    Raises:
        ValueError: If there is no batch, or an activation is not finite.
    """
    observers: dict[str, Observer] = {}
    points = find_points(model)

    def update(name: str, x: Tensor) -> None:
        observers.setdefault(name, Observer()).update(to_channels(points[name].module, x))

    with intercept(points, update):
        for batch in batches:
            model(batch)
    if not observers:
        raise ValueError('there must be at least one batch of calibration images')
    return {name: observer.summarise() for name, observer in observers.items()}


@torch.no_grad()
def describe_kernel(weight: Tensor) -> Kernel:
    """Describe a weight ``(C_out, C_in // groups, k, k)`` or ``(C_out, C_in)``."""
    magnitudes = weight.detach().double().abs()
    maxima = magnitudes.flatten(1).amax(1)
    largest = maxima.max().item()
    ratio = None
    if weight.ndim == 4 and weight[0, 0].numel() > 1:
        taps = magnitudes.flatten(2).amax((0, 1))
        centre = taps.numel() // 2
        rest = torch.cat([taps[:centre], taps[centre + 1 :]]).max().item()
        ratio = taps[centre].item() / max(rest, _TINY)
    quantiles = torch.quantile(maxima, torch.linspace(0, 1, NUM_QUANTILES, dtype=maxima.dtype))
    deviation = weight.detach().double().std(unbiased=False).item()
    return Kernel(largest, largest / max(deviation, _TINY), ratio, measure_spread(maxima), tuple(quantiles.tolist()))


@torch.no_grad()
def describe_norms(model: nn.Module) -> dict[str, tuple[Norm, ...]]:
    """Describe the batch norms that the switch fuses, by the name of their RepVGG block."""
    return {
        name: tuple(
            _describe_norm(_BRANCHES.get(path.split('.')[0], path), module)
            for path, module in block.named_modules()
            if isinstance(module, _BatchNorm)
        )
        for name, block in model.named_modules()
        if isinstance(block, RepVGGBlock) and not block.deploy
    }


def measure_spread(maxima: Tensor) -> float:
    """The largest number over the median. Zeros do not count."""
    positive = maxima[maxima > 0].double()
    return (positive.max() / positive.quantile(0.5)).item() if positive.numel() else 1.0


def _describe_norm(branch: str, norm: Any) -> Norm:
    scales = get_norm_scale_shift(norm)[0].abs()
    variances = norm.running_var
    return Norm(
        branch,
        scales.quantile(0.5).item(),
        scales.max().item(),
        variances.min().item(),
        int((variances < norm.eps).sum()),
    )

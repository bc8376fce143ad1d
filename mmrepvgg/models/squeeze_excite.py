"""Squeeze-and-excitation (Hu et al., arXiv:1709.01507) under mmpretrain's keys and arguments."""

from collections import OrderedDict
from collections.abc import Sequence

from mmcv.cnn import build_activation_layer
from torch import Tensor, nn


class SELayer(nn.Module):
    """Scale each channel by a gate computed from all channels' means.

    mmpretrain's ``SELayer`` in plain torch modules, because its ``ConvModule`` can't be scripted. The
    state-dict keys are the same: ``conv1.conv.{weight,bias}`` and ``conv2.conv.{weight,bias}``.

    Args:
        channels: Input and output channels.
        squeeze_channels: Channels between the two convolutions. Defaults to ``channels // ratio``, rounded
            to a multiple of ``divisor`` by at most 10% down.
        act_cfg: Activations after the two convolutions, or one for both.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        channels: int,
        squeeze_channels: int | None = None,
        ratio: int = 16,
        divisor: int = 8,
        bias: bool = True,
        act_cfg: dict | Sequence[dict] = (dict(type='ReLU'), dict(type='Sigmoid')),
    ):
        super().__init__()
        if squeeze_channels is None:
            squeeze_channels = _round_to_multiple(channels // ratio, divisor)
        if squeeze_channels < 1:
            raise ValueError(
                f'squeeze_channels must be at least 1, got {squeeze_channels} for {channels} channels and ratio '
                f'{ratio}; give a smaller ratio or squeeze_channels itself'
            )
        acts = (act_cfg, act_cfg) if isinstance(act_cfg, dict) else tuple(act_cfg)
        if len(acts) != 2:
            raise ValueError(f'act_cfg must be one dict or two, got {act_cfg!r}')
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = _make_conv_act(channels, squeeze_channels, acts[0], bias)
        self.conv2 = _make_conv_act(squeeze_channels, channels, acts[1], bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.pool(x)))


def _make_conv_act(in_channels: int, out_channels: int, act_cfg: dict, bias: bool) -> nn.Sequential:
    conv, act = nn.Conv2d(in_channels, out_channels, 1, bias=bias), build_activation_layer(act_cfg)
    return nn.Sequential(OrderedDict(conv=conv, activate=act))


def _round_to_multiple(channels: int, divisor: int) -> int:
    """Round to the nearest multiple of ``divisor`` that is not more than 10% below (as MobileNet does)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor

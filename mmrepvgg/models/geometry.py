"""Stride, padding and dilation of the convolutions in a block's branches."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from .fusion import FusionError

PADDING_MODES = ('zeros', 'reflect', 'replicate', 'circular')


def check_geometry(
    in_channels: int, out_channels: int, stride: int, padding: int, dilation: int, groups: int, padding_mode: str
) -> None:
    """Check the arguments of a block that concern its convolutions.

    Raises:
        TypeError: If a number is not an integer.
        ValueError: If an argument is out of range.
    """
    positive = dict(in_channels=in_channels, out_channels=out_channels, stride=stride, dilation=dilation, groups=groups)
    for name, value in dict(**positive, padding=padding).items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f'{name} must be an integer, got {value!r}')
        minimum = int(name in positive)
        if value < minimum:
            raise ValueError(f'{name} must be at least {minimum}, got {value}')
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f'groups must divide in_channels and out_channels ({in_channels} and {out_channels}), got {groups}'
        )
    if padding_mode not in PADDING_MODES:
        raise ValueError(f'padding_mode must be one of {", ".join(PADDING_MODES)}, got {padding_mode!r}')


def make_deploy_conv(like: Any, device: str | None = None) -> nn.Conv2d:
    """Make the convolution of the deploy form. ``like`` gives its geometry: a block, or its 3x3 convolution."""
    geometry = like.in_channels, like.out_channels, 3, like.stride, like.padding, like.dilation, like.groups
    return nn.Conv2d(*geometry, padding_mode=like.padding_mode, device=device)


def add_margins(x: Tensor, rows: int, columns: int, padding_mode: str) -> Tensor:
    """Pad ``(N, C, H, W)`` as a convolution with this padding mode does. A negative number cuts rows or columns off."""
    mode = 'constant' if padding_mode == 'zeros' or rows < 0 or columns < 0 else padding_mode
    return F.pad(x, [columns, columns, rows, rows], mode)


def make_pairs(*convs: Any) -> None:
    """Turn strides, paddings and dilations that were changed to integers into pairs, as torch's layers have them."""
    for conv in convs:
        if int in (type(conv.stride), type(conv.padding), type(conv.dilation)):
            conv.stride, conv.padding, conv.dilation = map(_pair, (conv.stride, conv.padding, conv.dilation))


def require_agreement(conv: Any, conv_1x1: Any, has_identity: bool) -> None:
    """Refuse branches that no longer equal one 3x3 convolution, because a convolution was changed after construction.

    Args:
        conv: The 3x3 convolution. The block follows its geometry.
        conv_1x1: The 1x1 convolution. It has stride 1 unless it was changed.
        has_identity: Whether there is an identity branch.

    Raises:
        FusionError: If the branches do not look at the same pixels.
    """
    make_pairs(conv, conv_1x1)
    follows = conv_1x1.padding == (0, 0) and all(
        stride % own_stride == 0 for stride, own_stride in zip(conv.stride, conv_1x1.stride, strict=True)
    )
    keeps_size = conv.stride == (1, 1) and conv.padding == conv.dilation
    if not follows or (has_identity and not keeps_size):
        raise FusionError(
            f'the branches contradict each other: the 3x3 convolution has stride {conv.stride}, padding {conv.padding} '
            f'and dilation {conv.dilation}, the 1x1 convolution has stride {conv_1x1.stride} and padding '
            f'{conv_1x1.padding}, and there is {"an" if has_identity else "no"} identity branch; change the stride of '
            'both convolutions, and padding and dilation of the 3x3 convolution alone'
        )

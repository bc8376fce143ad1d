"""Squeeze-and-excitation (Hu et al., arXiv:1709.01507)."""

from collections import OrderedDict
from typing import Any

from mmpretrain.models.utils.se_layer import SELayer as PlainSELayer
from torch import nn


class SELayer(PlainSELayer):
    """mmpretrain's layer, with the same arguments and keys, but without ``ConvModule``, which can't be scripted.

    Raises:
        ValueError: If an argument is out of range.
    """

    __jit_unused_properties__ = ['is_init']

    def __init__(self, channels: int, squeeze_channels: int | None = None, *args: Any, **kwargs: Any):
        if squeeze_channels is not None and squeeze_channels < 1:
            raise ValueError(f'squeeze_channels must be at least 1, got {squeeze_channels}')
        super().__init__(channels, squeeze_channels, *args, **kwargs)
        for name in ('conv1', 'conv2'):
            module = getattr(self, name)
            setattr(self, name, nn.Sequential(OrderedDict(conv=module.conv, activate=module.activate)))

"""Batch norms that pad with what they make of zeros, as those in the authors' diverse branch block."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.fusion import copy_for_probing

# What is known of modules that may be such: asking is slow.
_FOUND: WeakKeyDictionary[nn.Module, tuple[int, int]] = WeakKeyDictionary()


def find_padding(module: nn.Module) -> tuple[int, int]:
    """By how many pixels a module pads above and below, left and right, and then takes its one batch norm.

    The code that does so writes the border into a tensor, which no graph shows. So its outputs are compared.

    Returns:
        tuple: Zeros if it does anything else.
    """
    if not (type(module) is not nn.Sequential and [type(each) for each in module.children()] == [nn.BatchNorm2d]):
        return 0, 0
    if module not in _FOUND:
        try:
            _FOUND[module] = _measure(module)
        except Exception:  # the module's own code is run
            _FOUND[module] = 0, 0
    return _FOUND[module]


def get_norm(module: nn.Module) -> nn.Module:
    """The batch norm of a module that has one part."""
    return next(module.children())


@torch.no_grad()
def _measure(module: nn.Module) -> tuple[int, int]:
    module = copy_for_probing(module)
    norm: Any = get_norm(module)
    padding = 0, 0
    for x in _make_probes(norm.num_features):
        y = module(x)
        padding = tuple((after - before) // 2 for after, before in zip(y.shape[2:], x.shape[2:], strict=True))
        if min(padding) < 0 or not any(padding):
            return 0, 0
        expected = norm(F.pad(x, [padding[1]] * 2 + [padding[0]] * 2))
        if y.shape != expected.shape or not torch.allclose(y, expected):
            return 0, 0
    return padding


def _make_probes(channels: int) -> Iterator[Tensor]:
    for batch, height, width in ((1, 5, 8), (2, 8, 5), (3, 7, 7)):
        x = torch.linspace(-10, 10, batch * channels * height * width, dtype=torch.float64)
        yield x.reshape(batch, channels, height, width)

"""Blocks of many geometries, and that both forms of one are the same function."""

import copy
import itertools

import torch
from torch import Tensor, nn

GRID = [
    dict(in_channels=c_in, groups=groups, stride=stride, padding=dilation, dilation=dilation, se_cfg=se)
    for c_in, groups, stride, dilation, se in itertools.product(
        (4, 8), (1, 2, 4), (1, 2, 3), (1, 2), (None, dict(ratio=2, divisor=1))
    )
]


def assert_switch_keeps_function(block: nn.Module, x: Tensor, atol: float = 1e-10) -> nn.Module:
    """Check it, and give the deploy form. The block itself keeps its form."""
    expected = block(x)
    switched = copy.deepcopy(block)
    switched.switch_to_deploy()
    assert switched.deploy
    assert not hasattr(switched, 'branch_3x3')
    torch.testing.assert_close(switched(x), expected, atol=atol, rtol=0)
    return switched

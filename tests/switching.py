"""Small networks to switch by their structure, and the comparison of both forms."""

import torch
from torch import nn

from mmrepvgg import reparameterize


def conv_norm(*args, kind=nn.Conv2d, norm=nn.BatchNorm2d, **options):
    conv = kind(*args, **options)
    return nn.Sequential(conv, norm(conv.out_channels))


def branches():
    """Two that one 3x3 can take the place of."""
    return conv_norm(4, 4, 3, padding=1), conv_norm(4, 4, 1)


class Branches(nn.Module):
    """What all blocks of this kind have: branches to one sum, and an activation behind it."""

    def __init__(self, *branches, act=True):
        super().__init__()
        self.branches, self.act = nn.ModuleList(branches), nn.ReLU() if act else nn.Identity()

    def forward(self, x):
        y = 0
        for branch in self.branches:
            y = y + branch(x)
        return self.act(y)


def switch(model, x, **options):
    """The model in deploy form, compared in float64, and the report."""
    expected = model(x)
    switched, report = reparameterize(model, x, return_report=True, **options)
    torch.testing.assert_close(switched(x), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(model(x), expected, atol=0, rtol=0)
    return switched, report


def noise(*shape):
    return torch.rand(*shape, dtype=torch.float64)

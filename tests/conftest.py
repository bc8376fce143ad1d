"""Fixtures that all tests share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Give every batch norm statistics, gains and biases of its own; at their initial values wrong fusions pass."""

    def apply(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)

        def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

        for module in model.modules():
            if isinstance(module, _BatchNorm):
                if module.running_mean is not None:
                    uniform(module.running_mean, -0.5, 0.5)
                    uniform(module.running_var, 0.5, 2.0)
                if module.weight is not None:
                    uniform(module.weight, 0.5, 1.0)
                    uniform(module.bias, -0.3, 0.3)
        return model

    return apply

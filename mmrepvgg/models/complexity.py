"""The size of a model, and the work for an input."""

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, inputs: Tensor) -> int:
    """Number of multiply-adds of the convolutions and linear layers: half of the FLOPs that torch counts."""
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    return counter.get_total_flops() // 2

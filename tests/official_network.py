"""Small archs, and values for the networks of other repositories, for tests."""

import torch
from torch import nn

from mmrepvgg.models.archs import Arch

SMALL = Arch((1, 2, 1, 1), (0.125, 0.125, 0.0625, 0.046875), {2: 2}, dict(ratio=4, divisor=1))
PLAIN = Arch((1, 2, 1, 1), (0.125, 0.125, 0.0625, 0.046875))


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values with which no branch is negligible. Fast, also for networks of 100 million weights."""
    noise = torch.randn(1 << 18, generator=torch.Generator().manual_seed(seed))
    position = 0
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            tensor.fill_(7)
            continue
        position = (position + 1009) % noise.numel()
        repeats = -(-tensor.numel() // noise.numel()) + 1
        values = noise.repeat(repeats)[position : position + tensor.numel()].view(tensor.shape)
        if key.endswith('running_var'):
            values = values.abs() + 0.5
        elif tensor.dim() > 1:
            values = values / tensor[0].numel() ** 0.5
        else:
            values = 0.3 * values + (1 if key.endswith('weight') else 0)
        tensor.copy_(values)
    return model.eval()

"""The kernels of a block before and after the switch, as pictures."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..models.blocks import RepVGGBlock
from ..reparam.branches import find_branch_kernels
from .pictures import draw_kernel, take_tiles

_TITLES = {'3x3': '3x3 branch', '1x1': '1x1 branch', 'identity': 'identity branch'}
_SUM = 'one 3x3 convolution'


@dataclass(frozen=True)
class Kernels:
    """The kernels of a block.

    Attributes:
        block: Name of the block in the model.
        pictures: Pictures of the parts and, as the last one, of their sum, by their titles.
        limit: Absolute weight from which on the colour is the darkest.
        shape: Shape of the kernel.
    """

    block: str
    pictures: dict[str, str]
    limit: float
    shape: tuple[int, ...]


def draw_block(model: nn.Module) -> Kernels | None:
    """Draw the first block that has an identity branch, or else the first one; None if no block has branches."""
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, RepVGGBlock)}
    names = sorted(blocks, key=lambda name: not blocks[name].has_identity)  # stable: the network's order is kept
    for name in names:
        if kernels := find_branch_kernels(blocks[name]):
            whole: Any = sum(kernels.values())
            # the others are often far larger, and nothing could be seen of it on their scale
            limit = take_tiles(kernels['3x3']).abs().max().item()
            pictures = {_TITLES[branch]: draw_kernel(kernel, limit) for branch, kernel in kernels.items()}
            return Kernels(name, pictures | {_SUM: draw_kernel(whole, limit)}, limit, tuple(whole.shape))
    return None

"""What each branch of a block adds to the one kernel of its deploy form."""

import copy
from typing import Any

import torch
from torch import Tensor

from ..models.blocks import RepVGGBlock


@torch.no_grad()
def find_branch_kernels(block: RepVGGBlock) -> dict[str, Tensor]:
    """Split the equivalent kernel of a block in train form into the parts of its branches.

    The kernel is a sum in which each branch is a term, with all batch norms in it. So a term is what is lost when the
    weights of its branch are zero.

    Args:
        block: The block. It is not changed.

    Returns:
        dict[str, Tensor]: ``'3x3'``, ``'1x1'`` and, if there is one, ``'identity'``: kernels
        ``(C_out, C_in // groups, 3, 3)`` in float64, whose sum is the equivalent kernel. Empty for a block without
        branches.

    Raises:
        FusionError: If a branch can't be fused.
    """
    if not hasattr(block, 'branch_1x1'):
        return {}
    copied: Any = copy.deepcopy(block).double()
    whole = copied.get_equivalent_kernel_bias()[0]
    copied.branch_3x3.conv.weight.zero_()
    without_3x3 = copied.get_equivalent_kernel_bias()[0]
    if not block.has_identity:
        return {'3x3': whole - without_3x3, '1x1': without_3x3}
    copied.branch_1x1.conv.weight.zero_()
    identity = copied.get_equivalent_kernel_bias()[0]
    return {'3x3': whole - without_3x3, '1x1': without_3x3 - identity, 'identity': identity}

"""Custom L2: a weight decay of the equivalent kernel instead of the branches' kernels (official RepVGG code)."""

import torch
from torch import Tensor, nn

from .blocks import RepVGGBlock
from .fusion import get_norm_scale_shift


def custom_l2(block: RepVGGBlock) -> Tensor:
    """The penalty of one block in train form, before the factor ``weight_decay / 2``.

    With K3 and K1 the kernels of the 3x3 and the 1x1 branch, C the centre of K3, and t3 and t1 the scales
    ``gamma / sqrt(running_var + eps)`` of their batch norms, taken as constants::

        sum(K3^2) - sum(C^2) + sum((t3 * C + t1 * K1)^2 / (t3^2 + t1^2))

    The eight outer taps are penalised as they are. The centre is penalised as it will be in the fused kernel, but the
    scale of the batch norms has no influence. The formula is that of the source: it leaves out the identity branch,
    which has no kernel, though that adds to the fused centre, too.

    Returns:
        Tensor: A scalar of the kernels' dtype, differentiable in K3 and K1 only.

    Raises:
        ValueError: If the block is in deploy form, or its 1x1 branch has no batch norm (QARepVGG).
        FusionError: If a norm of the block is no batch norm with running statistics.
    """
    if not hasattr(block, 'branch_3x3'):
        raise ValueError('custom L2 needs the branches of a block in train form, got one in deploy form')
    if not hasattr(block.branch_1x1, 'norm'):
        raise ValueError(
            f'custom L2 is defined for the two batch norms of a RepVGGBlock, got a {type(block).__name__}; train such '
            'blocks with ordinary weight decay'
        )
    kernel_3x3, kernel_1x1 = block.branch_3x3.conv.weight, block.branch_1x1.conv.weight
    scale_3x3, scale_1x1 = (_get_scale(branch.norm, kernel_3x3) for branch in (block.branch_3x3, block.branch_1x1))
    centre = kernel_3x3[:, :, 1:2, 1:2]
    fused = scale_3x3 * centre + scale_1x1 * kernel_1x1
    # If both gains are exactly 0, the quotient is 0 / 0. The fused centre is 0 then, and so is its penalty.
    squares = (scale_3x3.square() + scale_1x1.square()).clamp_min(torch.finfo(fused.dtype).tiny)
    return kernel_3x3.square().sum() - centre.square().sum() + (fused.square() / squares).sum()


def _get_scale(norm: nn.Module, like: Tensor) -> Tensor:
    scale, _ = get_norm_scale_shift(norm)
    return scale.detach().to(like.dtype).reshape(-1, 1, 1, 1)

"""The scales of batch norms. They decide how large the weights of a fused kernel become."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .blocks import RepVGGBlock


@torch.no_grad()
def clip_norm_scales(model: nn.Module, factor: float) -> int:
    """Limit the batch norms' scales ``|gain| / sqrt(running_var + eps)`` to ``factor`` times their median.

    A nearly dead channel has a running variance close to 0. Its batch norm multiplies up to ``1 / sqrt(eps)`` times,
    which gives the fused kernel a very large weight, and an int8 grid of the whole kernel has few steps left for all
    other weights. The channel itself hardly varies, so that little is lost. Measure the accuracy before and after.

    Args:
        model: Any module with blocks in train form. Their gains are changed in place.
        factor: Largest scale as a multiple of the median, at least 1. Begin with 4.

    Returns:
        int: Number of channels whose scale was limited.

    Raises:
        ValueError: If the factor is below 1, or no block of ``model`` is in train form.
    """
    if not factor >= 1:
        raise ValueError(f'factor must be at least 1, got {factor}')
    blocks = [m for m in model.modules() if isinstance(m, RepVGGBlock) and hasattr(m, 'branch_3x3')]
    if not blocks:
        raise ValueError(
            f'{type(model).__name__} has no block in train form, and only these have batch norms whose scales can be '
            'limited'
        )
    num_limited = 0
    for block in blocks:
        for norm in block.modules():
            if not isinstance(norm, _BatchNorm) or norm.weight is None or norm.running_var is None:
                continue
            scale = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
            # the median of the channels that are used: gains near 0 would make the limit 0
            limit = factor * scale[norm.weight.abs() >= 1e-3 * norm.weight.abs().max()].median()
            # the margin is for rounding, so that a second call finds nothing
            is_wide = scale > limit * (1 + 1e-5)
            norm.weight.mul_(torch.where(is_wide, limit / scale, 1.0))
            num_limited += int(is_wide.sum())
    return num_limited

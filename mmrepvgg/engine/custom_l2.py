"""Custom L2: a weight decay of the equivalent kernel instead of the branches' kernels (official RepVGG code)."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from ..models.blocks import RepVGGBlock
from ..models.fusion import get_norm_scale_shift


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


class CustomL2Hook(Hook):
    """Replace the weight decay of the blocks' kernels by the loss term ``weight_decay / 2 * sum of custom_l2``.

    The term joins the model's losses after the forward pass, as in the official code, and is logged as
    ``loss_custom_l2``. The optimizer's own decay then leaves out the kernels of the 3x3 and the 1x1 branches. The hook
    works for any model (classifier, segmentor, detector), inside DDP, with mixed precision and gradient accumulation.
    One entry of the config switches it on::

        default_hooks = dict(custom_l2=dict(type='mmrepvgg.CustomL2Hook'))

    Args:
        weight_decay: Strength of the decay, above 0. Default: the weight decay of the optimizer.

    Raises:
        ValueError: When training starts, if the model has no trainable block in train form, if there is no weight
            decay to replace, or if the optimizer does not hold each kernel in a group of its own.
    """

    def __init__(self, weight_decay: float | None = None):
        if weight_decay is not None and not weight_decay > 0:
            raise ValueError(f"weight_decay must be greater than 0, or None for the optimizer's, got {weight_decay}")
        self.weight_decay = weight_decay

    # mmengine calls it after the checkpoint is loaded: a resumed optimizer brings its own decay of each parameter.
    def before_train(self, runner: Runner) -> None:
        model = getattr(runner.model, 'module', runner.model)
        blocks = [m for m in model.modules() if isinstance(m, RepVGGBlock) and _is_trained(m)]
        if not blocks:
            raise ValueError(
                f'custom L2 needs a model with trainable RepVGG blocks in train form, got none in '
                f'{type(model).__name__}; leave out CustomL2Hook'
            )
        optimizer = runner.optim_wrapper.optimizer
        weight_decay = self.weight_decay or optimizer.defaults.get('weight_decay', 0)
        if not weight_decay:
            raise ValueError(
                'custom L2 takes the place of weight decay, and the optimizer has none; set '
                'optim_wrapper.optimizer.weight_decay, or weight_decay of CustomL2Hook'
            )
        kernels = [weight for block in blocks for weight in _get_kernels(block)]
        _exempt_from_decay(optimizer, kernels)

        def add_loss(model: nn.Module, args: Any, kwargs: dict[str, Any], losses: Any) -> Any:
            if kwargs.get('mode') != 'loss':
                return losses
            return {**losses, 'loss_custom_l2': weight_decay / 2 * sum(custom_l2(block) for block in blocks)}

        self._handle = model.register_forward_hook(add_loss, with_kwargs=True)
        print_log(f'custom L2 replaces the weight decay of {len(kernels)} kernels', 'current')

    def after_train(self, runner: Runner) -> None:
        self._handle.remove()


def _is_trained(block: Any) -> bool:
    return hasattr(block, 'branch_3x3') and any(kernel.requires_grad for kernel in _get_kernels(block))


def _get_kernels(block: Any) -> tuple[nn.Parameter, nn.Parameter]:
    return block.branch_3x3.conv.weight, block.branch_1x1.conv.weight


def _exempt_from_decay(optimizer: Optimizer, kernels: list[nn.Parameter]) -> None:
    identities = {id(kernel) for kernel in kernels}
    for group in optimizer.param_groups:
        members = [id(param) in identities for param in group['params']]
        if any(members) and not all(members):
            raise ValueError(
                'custom L2 needs an optimizer with a group for each parameter, so that it can exempt the kernels alone '
                'from weight decay, got one group for all parameters; set optim_wrapper.paramwise_cfg, for example '
                'paramwise_cfg=dict(bias_decay_mult=0.0)'
            )
        if any(members):
            group['weight_decay'] = 0.0

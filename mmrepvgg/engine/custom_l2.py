"""Custom L2 in the training loop."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from ..models.blocks import RepVGGBlock
from ..models.custom_l2 import custom_l2

LOSS_NAME = 'loss_custom_l2'


class CustomL2Hook(Hook):
    """Replace the weight decay of the blocks' kernels by the loss term ``weight_decay / 2 * sum of custom_l2``.

    The term joins the model's losses after the forward pass, as in the official code, and is logged as
    ``loss_custom_l2``. At the same time the kernels of the 3x3 and the 1x1 branches are exempted from the optimizer's
    own decay.

    A hook on the model's forward pass, rather than a classifier of this project with another ``loss``: so it works
    for any model (classifier, segmentor, detector), inside DDP, with any optimizer wrapper and with gradient
    accumulation, and is switched on by one entry of the config, from the command line too::

        default_hooks = dict(custom_l2=dict(type='mmrepvgg.CustomL2Hook'))

    And rather than a hook that writes into gradients: these are scaled under mixed precision and accumulated.

    Args:
        weight_decay: The strength. Default: the optimizer's weight decay.

    Raises:
        ValueError: When training starts, if the model has no trainable block in train form, if there is no weight
            decay to replace, or if the optimizer does not hold each kernel in a group of its own.
    """

    def __init__(self, weight_decay: float | None = None):
        if weight_decay is not None and not weight_decay > 0:
            raise ValueError(f"weight_decay must be greater than 0, or None for the optimizer's, got {weight_decay}")
        self.weight_decay = weight_decay

    # After the checkpoint is loaded: a resumed optimizer brings its own decay of each parameter.
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
            return {**losses, LOSS_NAME: weight_decay / 2 * sum(custom_l2(block) for block in blocks)}

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
                'custom L2 needs an optimizer with a group for each parameter, so that the kernels alone are exempted '
                'from weight decay, and got one group for all; set optim_wrapper.paramwise_cfg, for example '
                'paramwise_cfg=dict(bias_decay_mult=0.0)'
            )
        if any(members):
            group['weight_decay'] = 0.0

"""The switch of any model that holds RepVGG blocks."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..models.backbone import RepVGG
from ..models.blocks import RepVGGBlock, switch_blocks
from ..models.heads import AuxiliaryClsHead

M = TypeVar('M', bound=nn.Module)


def reparameterize(model: M, inplace: bool = False) -> M:
    """Replace the branches of every RepVGG block in ``model`` by one convolution, and drop training-only heads.

    Args:
        model: A block, a backbone, a classifier, a detector or segmentor, or a wrapper of one (DDP, EMA). A
            DDP-wrapped model must be wrapped anew before it is trained on: its buckets hold the old parameters.
        inplace: Change ``model`` itself instead of a copy.

    Returns:
        The model in deploy form, in the same train or eval mode. A model that is in deploy form already is
        returned as it is (as a copy, unless ``inplace``).

    Raises:
        ValueError: If there is no block of this project in it.
        FusionError: If a block can't be fused; then no block has changed.
    """
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock)]
    if not blocks:
        raise ValueError(
            f'{type(model).__name__} holds no RepVGGBlock of mmrepvgg; a model built with another implementation '
            "must be rebuilt with type='mmrepvgg.RepVGG' and its weights loaded into that"
        )
    if inplace:
        switch_blocks(blocks)
    else:
        # one block is copied at a time, and the last ones, which are the largest, while there is most memory
        model = copy.deepcopy(model, {id(block): _copy_switched(block) for block in reversed(blocks)})
    for module in model.modules():
        if isinstance(module, RepVGG):
            module.deploy = True
        elif isinstance(module, AuxiliaryClsHead):
            module.switch_to_deploy()
        elif isinstance(module, DistributedDataParallel):
            # It would broadcast the batch norms' statistics before each forward pass, and fail without them.
            module.broadcast_buffers = False
    return model


def _copy_switched(block: RepVGGBlock) -> RepVGGBlock:
    copied = copy.deepcopy(block)
    copied.switch_to_deploy()
    return copied

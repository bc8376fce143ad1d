"""Switch any model that holds RepVGG blocks."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..models.backbone import RepVGG
from ..models.blocks import RepVGGBlock, copy_switched, switch_blocks
from ..models.heads import AuxiliaryClsHead

M = TypeVar('M', bound=nn.Module)


def reparameterize(model: M, inplace: bool = False) -> M:
    """Replace the branches of every RepVGG block in ``model`` by one convolution, and drop training-only heads.

    Args:
        model: A block, a backbone, a classifier, a detector or segmentor, or a wrapper of one of these (DDP, EMA). If
            you train a switched model in DDP, wrap it anew: DDP's buckets hold the old parameters.
        inplace: Change ``model`` itself instead of a copy.

    Returns:
        The model in deploy form (a copy, unless ``inplace``), in the same train or eval mode. A model that is in deploy
        form already does not change.

    Raises:
        ValueError: If the model holds no block of this project.
        FusionError: If a block can't be fused. No block has changed then.
        OverflowError: If a kernel is too large for float16 weights. No block has changed then.
    """
    blocks = [module for module in model.modules() if isinstance(module, RepVGGBlock)]
    if not blocks:
        raise ValueError(
            f'{type(model).__name__} holds no RepVGGBlock of mmrepvgg; if it was built with another implementation, '
            "build it with type='mmrepvgg.RepVGG' and load its weights into that"
        )
    if inplace:
        switch_blocks(blocks)
    else:
        copies = {id(block): copied for block, copied in zip(blocks, copy_switched(blocks), strict=True)}
        model = copy.deepcopy(model, copies)
    for module in model.modules():
        if isinstance(module, RepVGG):
            module.deploy = True
        elif isinstance(module, AuxiliaryClsHead):
            module.switch_to_deploy()
        elif isinstance(module, DistributedDataParallel):
            # DDP would broadcast the batch norms' statistics before each forward pass, and fail without them.
            module.broadcast_buffers = False
    return model

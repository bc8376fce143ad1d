"""timm's RepVGGs at half their width: every layer is there, and all the widths are still what timm does not round."""

from dataclasses import replace

from timm.models.byobnet import ByobNet, model_cfgs
from torch import nn


def build_narrow_timm(name: str, num_classes: int) -> nn.Module:
    """``name`` is timm's, such as ``'repvgg_a0'``; with 0 classes the network ends with its features."""
    cfg = model_cfgs[name]
    blocks = tuple(replace(block, c=block.c // 2) for block in cfg.blocks)
    return ByobNet(
        replace(cfg, blocks=blocks, stem_chs=min(64, int(blocks[0].c))),
        num_classes=num_classes,
        global_pool='avg' if num_classes else '',
    )

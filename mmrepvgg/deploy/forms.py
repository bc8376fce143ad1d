"""The model of a config in either form."""

import copy
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn


def build_model(cfg: Config, deploy: bool) -> nn.Module:
    """Build ``cfg.model`` in the given form, in eval mode and on the CPU. No pretrained weights are read.

    The train form of a config with ``deploy_norm`` is the deploy form with these norms inserted.
    """
    model_cfg = copy.deepcopy(cfg.model)
    for backbone in _find_backbones(model_cfg):
        if deploy:
            backbone.pop('deploy_norm', None)
        backbone['deploy'] = deploy or backbone.get('deploy_norm') is not None
    if 'data_preprocessor' in cfg:  # as the Runner does
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model_cfg['_scope_'] = cfg.get('default_scope', 'mmpretrain')
    return MODELS.build(model_cfg).eval()


def _find_backbones(node: Any) -> list[dict]:
    if isinstance(node, dict):
        found = [node] if str(node.get('type', '')).split('.')[-1] == 'RepVGG' else []
        return found + [backbone for value in node.values() for backbone in _find_backbones(value)]
    if isinstance(node, list | tuple):
        return [backbone for value in node for backbone in _find_backbones(value)]
    return []

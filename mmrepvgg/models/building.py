"""The model of a config in either form."""

import copy

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from .config_types import get_type_name, iterate_parts
from .fake_quant import set_fake_quantization

# What takes an argument deploy.
_PARTS_WITH_FORM = ('RepVGG', 'AuxiliaryClsHead')


def build_model(cfg: Config, deploy: bool) -> nn.Module:
    """Build ``cfg.model`` in the given form, in eval mode and on torch's default device.

    No pretrained weights are read. The train form of a config with ``deploy_norm`` is the deploy form with these
    norms inserted. With ``quantization`` the train form has its quantizers, switched off: what is compared,
    measured and exported is the model in floating point. The deploy form has none.
    """
    model_cfg = copy.deepcopy(cfg.model)
    for part in iterate_parts(model_cfg):
        if get_type_name(part['type']) not in _PARTS_WITH_FORM:
            continue
        if deploy:
            part.pop('deploy_norm', None)
            part.pop('quantization', None)
        part['deploy'] = deploy or part.get('deploy_norm') is not None
    if 'data_preprocessor' in cfg:  # as the Runner does
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model_cfg['_scope_'] = cfg.get('default_scope', 'mmpretrain')
    model = MODELS.build(model_cfg).eval()
    set_fake_quantization(model, enabled=False)
    return model

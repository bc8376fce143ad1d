"""The model of a config in either form."""

import copy
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

from .config_types import get_type_name, iterate_parts, require_model
from .fake_quant import set_fake_quantization

# The types that have an argument ``deploy``.
_PARTS_WITH_FORM = ('RepVGG', 'AuxiliaryClsHead')


def build_model(cfg: Config, deploy: bool) -> nn.Module:
    """Build ``cfg.model`` in the given form, in eval mode and on torch's default device.

    No pretrained weights are read. If the config has ``deploy_norm``, its train form is the deploy form with these
    norms inserted. If the config has ``quantization``, the train form has quantizers, which are switched off: the model
    computes in floating point. The deploy form has no quantizers.

    Raises:
        ValueError: If the config has no model.
    """
    require_model(cfg)
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


class NoRandomWeights(TorchFunctionMode):
    """Within ``with NoRandomWeights():`` convolutions and linear layers are built without random numbers.

    Memory that nobody writes to is not taken. So a model that gets its weights by ``load_state_dict(assign=True)``
    needs none beside them.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, '__module__', '') == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return function(*args, **kwargs)

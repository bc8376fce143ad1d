"""Mixed precision for whichever machine."""

import torch
from mmengine import optim
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmrepvgg.engine.amp import CPUAmpOptimWrapper


def build():
    cfg = dict(type='mmrepvgg.AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=5.0))
    return build_optim_wrapper(nn.Linear(2, 2), cfg)


def test_bfloat16_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    wrapper = build()
    assert type(wrapper) is CPUAmpOptimWrapper
    layer = nn.Linear(2, 2)
    with wrapper.optim_context(layer):
        assert layer(torch.zeros(1, 2)).dtype == torch.bfloat16


def test_float16_with_loss_scaling_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    # stands in for mmengine's, which refuses to be built without a GPU
    monkeypatch.setattr(optim, 'AmpOptimWrapper', lambda **kwargs: kwargs)
    arguments = build()
    assert arguments['loss_scale'] == 'dynamic'
    assert arguments['clip_grad'] == dict(max_norm=5.0)
    assert isinstance(arguments['optimizer'], torch.optim.SGD)

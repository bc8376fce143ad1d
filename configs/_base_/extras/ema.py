"""Exponential moving average of the weights, decay 0.9999; it is what is validated and saved as state_dict.

In a config of your own:

    _base_ = ['./repvgg-a0_8xb32.py', '../_base_/extras/ema.py']
    default_hooks = _base_.ema
"""

ema = dict(ema=dict(type='EMAHook', momentum=1e-4))

"""Gradient clipping: the norm of all gradients together is at most 5 (MindSpore's option).

In a config of your own:

    _base_ = ['./repvgg-a0_8xb32.py', '../_base_/extras/clip_grad.py']
    optim_wrapper = _base_.clip_grad

With amp.py: optim_wrapper = {**_base_.amp, **_base_.clip_grad}
"""

clip_grad = dict(clip_grad=dict(max_norm=5.0))

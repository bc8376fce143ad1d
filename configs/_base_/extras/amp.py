"""Mixed precision: float16 with dynamic loss scaling on a GPU, bfloat16 on a CPU.

In a config of your own:

    _base_ = ['./repvgg-a0_8xb32.py', '../_base_/extras/amp.py']
    optim_wrapper = _base_.amp

mmrepvgg train CONFIG --amp does the same without a config of your own.
"""

amp = dict(type='mmrepvgg.AmpOptimWrapper')

"""repvgg-a0_digits.py with custom L2 in place of the kernels' weight decay (docs/training.md).

mmrepvgg train repvgg-a0_digits_custom-l2
Top-1 to expect: about that of repvgg-a0_digits.py.
"""

_base_ = './repvgg-a0_digits.py'

default_hooks = dict(custom_l2=dict(type='mmrepvgg.CustomL2Hook'))

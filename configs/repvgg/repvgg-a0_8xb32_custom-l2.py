"""RepVGG-A0 on ImageNet-1k with custom L2 in place of the kernels' weight decay (docs/training.md).

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a0_8xb32_custom-l2 --launcher pytorch
Top-1 to expect: that of repvgg-a0_8xb32.py; the authors call the gain insignificant (84.16 against 84.06 on L2pse).
For any other config add --cfg-options default_hooks.custom_l2.type=mmrepvgg.CustomL2Hook
"""

_base_ = './repvgg-a0_8xb32.py'

default_hooks = dict(custom_l2=dict(type='mmrepvgg.CustomL2Hook'))

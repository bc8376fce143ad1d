"""QARepVGG-A2 on ImageNet-1k: RepVGG-A2 with blocks made for int8, weight decay 4e-5, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train qarepvgg-a2_8xb32 --launcher pytorch
Top-1 to expect: about that of repvgg-a2_8xb32.py.
"""

_base_ = './qarepvgg-a0_8xb32.py'

model = dict(backbone=dict(arch='A2'))

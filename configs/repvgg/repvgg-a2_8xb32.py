"""RepVGG-A2 on ImageNet-1k, the paper's 120 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a2_8xb32 --launcher pytorch
Top-1 to expect: 76.48 (paper, Table 4); 76.49 by mmpretrain's own training.
"""

_base_ = './repvgg-a0_8xb32.py'

model = dict(backbone=dict(arch='A2'))

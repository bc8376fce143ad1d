"""RepVGG-B1g4 on ImageNet-1k, the paper's 120 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-b1g4_8xb32 --launcher pytorch
Top-1 to expect: 77.58 (paper, Table 4); 77.81 by mmpretrain's own training.
"""

_base_ = './repvgg-a0_8xb32.py'

model = dict(backbone=dict(arch='B1g4'))

"""RepVGG-B3g4 on ImageNet-1k, the paper's 200 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-b3g4_8xb32 --launcher pytorch
Top-1 to expect: 80.21 (paper, Table 5); 80.26 by mmpretrain's own training.
"""

_base_ = './repvgg-b3_8xb32.py'

model = dict(backbone=dict(arch='B3g4'))

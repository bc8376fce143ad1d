"""RepVGG-B2g4 on ImageNet-1k, the paper's 200 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-b2g4_8xb32 --launcher pytorch
Top-1 to expect: 79.38 (paper, Table 5); 79.44 by mmpretrain's own training.
78.50 after 120 epochs of the plain recipe (paper, Table 4).
"""

_base_ = './repvgg-b3_8xb32.py'

model = dict(backbone=dict(arch='B2g4'))

"""RepVGG-B2g2 on ImageNet-1k, the paper's 120 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-b2g2_8xb32 --launcher pytorch
Top-1 to expect: nobody publishes one for this arch.
"""

_base_ = './repvgg-a0_8xb32.py'

model = dict(backbone=dict(arch='B2g2'))

"""RepVGG-A0 on ImageNet-1k, the paper's 120 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a0_8xb32 --launcher pytorch
Top-1 to expect: 72.41 (paper, Table 4); 72.37 by mmpretrain's own training.
With another number of GPUs add --auto-scale-lr: the learning rate must follow the total batch size.
"""

_base_ = [
    '../_base_/models/repvgg-a0.py',
    '../_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet_bs256_120e.py',
    '../_base_/default_runtime.py',
]

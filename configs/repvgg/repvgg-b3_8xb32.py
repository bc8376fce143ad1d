"""RepVGG-B3 on ImageNet-1k, the paper's 200 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-b3_8xb32 --launcher pytorch
Top-1 to expect: 80.52 (paper, Table 5); 80.58 by mmpretrain's own training.
AutoAugment, mixup of 0.2, label smoothing of 0.1, 5 epochs of warm-up.
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs32_autoaug_mixup.py',
    '../_base_/schedules/imagenet_bs256_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='B3'))

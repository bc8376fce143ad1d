"""RepVGG-A1 on ImageNet-1k, MindCV's 240 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a1_mindcv_8xb32 --launcher pytorch
Top-1 to expect: 74.19 (MindCV).
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs32_colorjitter.py',
    '../_base_/schedules/imagenet_bs256_mindcv.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='A1'))

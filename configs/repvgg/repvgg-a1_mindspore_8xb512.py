"""RepVGG-A1 on ImageNet-1k with MindSpore's recipe for A0, 180 epochs, 8 GPUs x 512 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a1_mindspore_8xb512 --launcher pytorch
Top-1 to expect: nobody publishes one for this recipe.
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs512_bicubic.py',
    '../_base_/schedules/imagenet_bs4096_mindspore.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='A1'))

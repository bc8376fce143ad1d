"""RepVGG-A0 on ImageNet-1k, MindSpore's 180 epochs, 8 GPUs x 512 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a0_mindspore_8xb512 --launcher pytorch
Top-1 to expect: MindSpore publishes none that is known here; 72.41 by the paper, with its own recipe.
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs512_bicubic.py',
    '../_base_/schedules/imagenet_bs4096_mindspore.py',
    '../_base_/default_runtime.py',
]

"""RepVGG-A0 on ImageNet-1k, MindCV's 400 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a0_mindcv_8xb32 --launcher pytorch
Top-1 to expect: 72.19 (MindCV).
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs32_colorjitter_bicubic.py',
    '../_base_/schedules/imagenet_bs256_mindcv.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_epochs=400)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=10, convert_to_iter_based=True),
]

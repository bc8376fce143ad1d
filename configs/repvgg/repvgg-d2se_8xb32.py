"""RepVGG-D2se on ImageNet-1k, the paper's 200 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-d2se_8xb32 --launcher pytorch
Top-1 to expect: 83.55 at 320 pixels, 81.82 at 224 (official README, trained at 224).
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs32_autoaug_mixup_test320.py',
    '../_base_/schedules/imagenet_bs256_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(backbone=dict(arch='D2se'))

optim_wrapper = dict(optimizer=dict(nesterov=True))

"""RepVGG-L2pse on ImageNet-1k, 300 epochs at 256 pixels, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-l2pse_8xb32 --launcher pytorch
Top-1 to expect: 84.06 at 320 pixels (official README).
"""

_base_ = [
    '../_base_/models/repvgg-a0_smoothed.py',
    '../_base_/datasets/imagenet_bs32_randaug_mixup_256.py',
    '../_base_/schedules/imagenet_bs256_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # stages 1 and 2 and block 12 of stage 3 feed the training-only heads
    backbone=dict(arch='L2pse', out_indices=(0, 1, (2, 11), 3)),
    neck=None,
    head=dict(type='mmrepvgg.AuxiliaryClsHead', aux_loss_weight=0.1),
)

"""A network of 4 blocks on 63 digits, 3 steps an epoch, with all that draws random numbers or keeps a state."""

_base_ = '../../configs/repvgg/repvgg-a0_digits.py'

model = dict(
    backbone=dict(arch=dict(_delete_=True, num_blocks=[1, 1, 1, 1], width_factor=[0.1, 0.1, 0.1, 0.1])),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=16, num_workers=2, dataset=dict(indices=list(range(0, 1437, 23)), pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=20, num_workers=0, persistent_workers=False, dataset=dict(indices=list(range(0, 360, 18)))
)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=2), logger=dict(interval=1), ema=dict(type='EMAHook', momentum=0.1)
)

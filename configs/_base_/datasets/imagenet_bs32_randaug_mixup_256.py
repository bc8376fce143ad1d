"""As imagenet_bs32.py, at 256 pixels, with RandAugment (2 operations at 15 of 30) and mixup of 0.2; test at 320.

Source: RepVGG's newest official training script, preset raug15.
"""

_base_ = './imagenet_bs32.py'

data_preprocessor = dict(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.2)]))

train_crop = [
    dict(type='LoadImageFromFile'),
    dict(type='mmrepvgg.RandomResizedCrop', scale=256, backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]
train_pipeline = [
    *train_crop,
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=30,
        magnitude_level=15,
        hparams=dict(pad_val=[104, 116, 124]),
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmrepvgg.ResizeEdge', scale=320, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=320),
    dict(type='PackInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

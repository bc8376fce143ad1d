"""As imagenet_bs32_autoaug_mixup.py, tested at 320 pixels."""

_base_ = './imagenet_bs32_autoaug_mixup.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmrepvgg.ResizeEdge', scale=320, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=320),
    dict(type='PackInputs'),
]

val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

"""As imagenet_bs32_colorjitter.py, with the test images resized by bicubic interpolation (MindCV's A0)."""

_base_ = './imagenet_bs32_colorjitter.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmrepvgg.ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

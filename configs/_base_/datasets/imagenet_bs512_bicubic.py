"""As imagenet_bs32.py, 512 images a GPU, with the test images resized by bicubic interpolation (MindSpore)."""

_base_ = './imagenet_bs32.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmrepvgg.ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(batch_size=512)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

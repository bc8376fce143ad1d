"""As imagenet_bs32.py, with a colour jitter of 0.4: brightness, contrast and saturation, not hue (MindCV)."""

_base_ = './imagenet_bs32.py'

train_pipeline = [
    *_base_.train_crop,
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

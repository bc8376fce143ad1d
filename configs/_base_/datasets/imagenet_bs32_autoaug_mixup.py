"""As imagenet_bs32.py, with the ImageNet policy of AutoAugment (arXiv:1805.09501, Table 9) and mixup of 0.2."""

_base_ = './imagenet_bs32.py'

data_preprocessor = dict(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.2)]))

# 'imagenet' names mmpretrain's table of that policy. What a rotation or a shear uncovers is filled with the mean
# (in BGR, as images are loaded).
train_pipeline = [
    *_base_.train_crop,
    dict(type='AutoAugment', policies='imagenet', hparams=dict(pad_val=[104, 116, 124])),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

"""RandAugment (arXiv:1909.13719): 2 operations at 7 of 10, in place of the recipe's own augmentation.

In a config of your own:

    _base_ = ['./repvgg-a0_8xb32.py', '../_base_/extras/rand_augment.py']
    train_dataloader = dict(
        dataset=dict(pipeline=[*_base_.train_crop, _base_.rand_augment, dict(type='PackInputs')])
    )
"""

rand_augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=7,
    magnitude_std=0.5,
    # what a rotation or a shear uncovers is filled with the mean, in BGR as images are loaded
    hparams=dict(pad_val=[104, 116, 124]),
)

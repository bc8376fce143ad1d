"""CutMix (arXiv:1905.04899) on every batch, in place of mixup where the recipe has it.

In a config of your own:

    _base_ = ['./repvgg-a0_8xb32.py', '../_base_/extras/cutmix.py']
    data_preprocessor = _base_.cutmix

Both, chosen at random for each batch: name two in augments, CutMix and dict(type='Mixup', alpha=0.2).
"""

cutmix = dict(batch_augments=dict(augments=[dict(type='CutMix', alpha=1.0)]))

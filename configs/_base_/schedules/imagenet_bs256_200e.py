"""The paper's 200 epochs: as the 120, with 5 epochs of linear warm-up."""

_base_ = './imagenet_bs256_120e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=5, convert_to_iter_based=True),
]

train_cfg = dict(max_epochs=200)

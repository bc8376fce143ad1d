"""RepVGGplus' 300 epochs: as the 200, with Nesterov's momentum and a weight decay of 4e-5 (official main.py)."""

_base_ = './imagenet_bs256_200e.py'

optim_wrapper = dict(optimizer=dict(nesterov=True, weight_decay=4e-5))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=5, convert_to_iter_based=True),
]

train_cfg = dict(max_epochs=300)

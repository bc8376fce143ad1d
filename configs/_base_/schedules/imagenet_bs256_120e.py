"""The paper's 120 epochs: SGD, batch 256, learning rate 0.1 with a cosine to 0 over the iterations, no warm-up."""

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    # What decays: convolution and linear weights, and the gain of the identity branch's batch norm. What does not:
    # any bias, and the gains of all other batch norms.
    paramwise_cfg=dict(
        bias_decay_mult=0.0, norm_decay_mult=0.0, custom_keys={'branch_norm.weight': dict(decay_mult=1.0)}
    ),
)

# Without T_max and end it lasts for train_cfg.max_epochs, which is then the one number to change.
param_scheduler = dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, convert_to_iter_based=True)

train_cfg = dict(by_epoch=True, max_epochs=120, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# --auto-scale-lr keeps lr / total batch size
auto_scale_lr = dict(base_batch_size=256)

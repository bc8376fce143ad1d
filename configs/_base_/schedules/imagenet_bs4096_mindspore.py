"""MindSpore's schedule, 180 epochs at 8 x 512 images: learning rate 0.1 x batch / 256 with a cosine to 6e-6."""

optim_wrapper = dict(
    # float16 (bfloat16 on a CPU), with dynamic loss scaling
    type='mmrepvgg.AmpOptimWrapper',
    optimizer=dict(type='SGD', lr=1.6, momentum=0.9, weight_decay=1e-4),
)

param_scheduler = dict(type='CosineAnnealingLR', eta_min=6e-6, by_epoch=True, begin=0, convert_to_iter_based=True)

train_cfg = dict(by_epoch=True, max_epochs=180, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=4096)

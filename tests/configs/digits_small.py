"""A RepVGG of 6 blocks on the digits, which a test trains to 97% and more in a few seconds."""

_base_ = '../../configs/repvgg/repvgg-a0_digits.py'

model = dict(backbone=dict(arch=dict(_delete_=True, num_blocks=[1, 1, 2, 1], width_factor=[0.5, 0.5, 0.5, 0.5])))

train_cfg = dict(max_epochs=6, val_interval=6)
default_hooks = dict(checkpoint=dict(interval=6))

# the images are so small that a process that reads them takes longer than they do
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader

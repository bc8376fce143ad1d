"""RepVGG-A0 on scikit-learn's digits: the whole path in a few minutes on a CPU.

mmrepvgg prepare-digits && mmrepvgg train repvgg-a0_digits
make demo does this, switches the result and tests both forms.
Top-1 to expect: 98.9 to 99.2, as the CPU rounds (the table in README.md).
"""

_base_ = [
    '../_base_/models/repvgg-a0.py',
    '../_base_/datasets/digits_bs64.py',
    '../_base_/schedules/imagenet_bs256_120e.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(num_classes=10, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, _delete_=True)))

train_cfg = dict(max_epochs=20, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=0.05))

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=64)
randomness = dict(seed=0)

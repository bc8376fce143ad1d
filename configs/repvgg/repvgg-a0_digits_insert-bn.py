"""Fine-tuning of a converted RepVGG-A0 on digits, batch norms inserted behind its convolutions (docs/training.md).

make demo    # writes the deploy checkpoint from which this starts
mmrepvgg train repvgg-a0_digits_insert-bn
mmrepvgg reparameterize repvgg-a0_digits_insert-bn work_dirs/repvgg-a0_digits_insert-bn/epoch_4.pth digits_deploy.pth
mmrepvgg test repvgg-a0_digits_deploy digits_deploy.pth --metrics accuracy

Top-1 to expect: about that of the converted model; docs/training.md says when this is worth it.
"""

_base_ = './repvgg-a0_digits.py'

model = dict(backbone=dict(deploy=True, deploy_norm=dict(type='BN')))

load_from = 'work_dirs/repvgg-a0_digits/deploy.pth'

# a tenth of the rate that the model was trained with
optim_wrapper = dict(optimizer=dict(lr=0.005), paramwise_cfg=dict(custom_keys={'deploy_norm': dict(decay_mult=0.0)}))
train_cfg = dict(max_epochs=4, val_interval=1)

default_hooks = dict(calibrate=dict(type='mmrepvgg.CalibrateInsertedNormsHook', num_batches=20))

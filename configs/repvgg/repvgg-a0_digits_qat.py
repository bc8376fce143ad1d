"""Quantization-aware training of a trained RepVGG-A0 on digits: its int8 file is as accurate as the model was.

make demo    # trains the model from which this starts
mmrepvgg train repvgg-a0_digits_qat
mmrepvgg test repvgg-a0_digits_qat work_dirs/repvgg-a0_digits_qat/epoch_5.pth --metrics accuracy    # simulated int8
Top-1 to expect: about that of the float32 model, in int8; docs/quantization.md has six such trainings. The
weights are for mmrepvgg quantize: in float32 they may be less accurate.
"""

_base_ = './repvgg-a0_digits.py'

model = dict(backbone=dict(quantization=dict(granularity='per-tensor', ranges='observed', momentum=0.05)))

load_from = 'work_dirs/repvgg-a0_digits/epoch_20.pth'

# a tenth of the rate that the model was trained with
optim_wrapper = dict(
    optimizer=dict(lr=0.005), paramwise_cfg=dict(custom_keys=dict(input_quantizer=dict(decay_mult=0.0)))
)
train_cfg = dict(max_epochs=5, val_interval=1)

default_hooks = dict(
    checkpoint=dict(interval=1),
    quantization=dict(
        type='mmrepvgg.QuantizationAwareHook', num_calibration_batches=20, freeze_ranges_after=4, clip_scales=4.0
    ),
)

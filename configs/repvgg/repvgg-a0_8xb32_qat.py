"""Quantization-aware training of a trained RepVGG-A0 on ImageNet-1k, 10 epochs, 8 GPUs x 32 images.

torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a0_8xb32_qat --launcher pytorch
Top-1 to expect: not measured. The float32 model has 72.41, standard per-tensor quantization leaves 52.2
(QARepVGG paper, arXiv:2212.01593). Its authors advise to train the equivalent kernels so. The schedule is this
project's: a hundredth of the original rate, with a cosine to 0.
It starts from the checkpoint of repvgg-a0_8xb32.py. For another one add --cfg-options load_from=CHECKPOINT
"""

_base_ = './repvgg-a0_8xb32.py'

# most runtimes have a scale for each output channel; 'per-tensor' for those that have not
model = dict(backbone=dict(quantization=dict(granularity='per-channel', ranges='observed')))

load_from = 'work_dirs/repvgg-a0_8xb32/epoch_120.pth'

optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(custom_keys=dict(input_quantizer=dict(decay_mult=0.0)))
)
train_cfg = dict(max_epochs=10)

default_hooks = dict(
    quantization=dict(type='mmrepvgg.QuantizationAwareHook', num_calibration_batches=100, freeze_ranges_after=9)
)

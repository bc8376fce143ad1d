"""QARepVGG-A0 on scikit-learn's digits: half as many epochs more than repvgg-a0_digits.py.

python tools/prepare_digits.py && python tools/train.py configs/repvgg/qarepvgg-a0_digits.py
Top-1 to expect: see docs/quantization.md.
"""

_base_ = './repvgg-a0_digits.py'

model = dict(backbone=dict(block='QARepVGGBlock'))

optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
train_cfg = dict(max_epochs=32)
param_scheduler = dict(T_max=32, end=32)

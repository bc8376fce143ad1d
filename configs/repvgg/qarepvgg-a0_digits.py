"""QARepVGG-A0 on scikit-learn's digits: three times the epochs of repvgg-a0_digits.py, for it learns more slowly.

python tools/prepare_digits.py && python tools/train.py configs/repvgg/qarepvgg-a0_digits.py
Top-1 to expect: see docs/quantization.md.
"""

_base_ = './repvgg-a0_digits.py'

model = dict(backbone=dict(block='QARepVGGBlock'))

optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
train_cfg = dict(max_epochs=60)

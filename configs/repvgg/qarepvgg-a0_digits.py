"""QARepVGG-A0 on scikit-learn's digits: three times the epochs of repvgg-a0_digits.py, since it learns more slowly.

mmrepvgg prepare-digits && mmrepvgg train qarepvgg-a0_digits
Top-1 to expect: 98.3 to 99.7, as in the six trainings of docs/quantization.md, which have other schedules.
"""

_base_ = './repvgg-a0_digits.py'

model = dict(backbone=dict(block='QARepVGGBlock'))

optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
train_cfg = dict(max_epochs=60)

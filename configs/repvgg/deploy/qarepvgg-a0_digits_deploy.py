"""The deploy form of qarepvgg-a0_digits.py.

python tools/reparameterize_model.py configs/repvgg/qarepvgg-a0_digits.py SRC digits_deploy.pth
python tools/test.py configs/repvgg/deploy/qarepvgg-a0_digits_deploy.py digits_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a0_digits.py'

model = dict(backbone=dict(deploy=True))

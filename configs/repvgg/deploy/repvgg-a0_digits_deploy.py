"""The deploy form of repvgg-a0_digits.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-a0_digits.py SRC digits_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-a0_digits_deploy.py digits_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a0_digits.py'

model = dict(backbone=dict(deploy=True))

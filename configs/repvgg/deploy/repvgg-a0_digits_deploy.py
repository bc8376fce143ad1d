"""The deploy form of repvgg-a0_digits.py.

mmrepvgg reparameterize repvgg-a0_digits SRC digits_deploy.pth
mmrepvgg test repvgg-a0_digits_deploy digits_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a0_digits.py'

model = dict(backbone=dict(deploy=True))

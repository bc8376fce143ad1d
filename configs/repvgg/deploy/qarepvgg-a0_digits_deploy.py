"""The deploy form of qarepvgg-a0_digits.py.

mmrepvgg reparameterize qarepvgg-a0_digits SRC digits_deploy.pth
mmrepvgg test qarepvgg-a0_digits_deploy digits_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a0_digits.py'

model = dict(backbone=dict(deploy=True))

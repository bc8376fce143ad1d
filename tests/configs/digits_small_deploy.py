"""The deploy form of digits_small.py."""

_base_ = './digits_small.py'

model = dict(backbone=dict(deploy=True))

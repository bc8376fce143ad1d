"""The deploy form of qarepvgg-a0_8xb32.py, which is that of RepVGG-A0.

mmrepvgg reparameterize qarepvgg-a0_8xb32 SRC qarepvgg-a0_deploy.pth
mmrepvgg test qarepvgg-a0_deploy qarepvgg-a0_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a0_8xb32.py'

model = dict(backbone=dict(deploy=True))

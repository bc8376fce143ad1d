"""The deploy form of qarepvgg-b0_8xb32.py, which is that of RepVGG-B0.

mmrepvgg reparameterize qarepvgg-b0_8xb32 SRC qarepvgg-b0_deploy.pth
mmrepvgg test qarepvgg-b0_deploy qarepvgg-b0_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-b0_8xb32.py'

model = dict(backbone=dict(deploy=True))

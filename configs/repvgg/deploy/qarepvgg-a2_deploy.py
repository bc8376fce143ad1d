"""The deploy form of qarepvgg-a2_8xb32.py, which is that of RepVGG-A2.

mmrepvgg reparameterize qarepvgg-a2_8xb32 SRC qarepvgg-a2_deploy.pth
mmrepvgg test qarepvgg-a2_deploy qarepvgg-a2_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a2_8xb32.py'

model = dict(backbone=dict(deploy=True))

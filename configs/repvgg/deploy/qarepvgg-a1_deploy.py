"""The deploy form of qarepvgg-a1_8xb32.py, which is that of RepVGG-A1.

mmrepvgg reparameterize qarepvgg-a1_8xb32 SRC qarepvgg-a1_deploy.pth
mmrepvgg test qarepvgg-a1_deploy qarepvgg-a1_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a1_8xb32.py'

model = dict(backbone=dict(deploy=True))

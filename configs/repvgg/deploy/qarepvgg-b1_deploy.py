"""The deploy form of qarepvgg-b1_8xb32.py, which is that of RepVGG-B1.

mmrepvgg reparameterize qarepvgg-b1_8xb32 SRC qarepvgg-b1_deploy.pth
mmrepvgg test qarepvgg-b1_deploy qarepvgg-b1_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-b1_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of qarepvgg-b1g4_8xb32.py, which is that of RepVGG-B1g4.

mmrepvgg reparameterize qarepvgg-b1g4_8xb32 SRC qarepvgg-b1g4_deploy.pth
mmrepvgg test qarepvgg-b1g4_deploy qarepvgg-b1g4_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-b1g4_8xb32.py'

model = dict(backbone=dict(deploy=True))

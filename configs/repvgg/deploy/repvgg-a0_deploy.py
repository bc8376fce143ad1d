"""The deploy form of repvgg-a0_8xb32.py.

mmrepvgg reparameterize repvgg-a0_8xb32 SRC repvgg-a0_deploy.pth
mmrepvgg test repvgg-a0_deploy repvgg-a0_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a0_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-b0_8xb32.py.

mmrepvgg reparameterize repvgg-b0_8xb32 SRC repvgg-b0_deploy.pth
mmrepvgg test repvgg-b0_deploy repvgg-b0_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b0_8xb32.py'

model = dict(backbone=dict(deploy=True))

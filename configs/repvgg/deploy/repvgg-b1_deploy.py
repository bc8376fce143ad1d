"""The deploy form of repvgg-b1_8xb32.py.

mmrepvgg reparameterize repvgg-b1_8xb32 SRC repvgg-b1_deploy.pth
mmrepvgg test repvgg-b1_deploy repvgg-b1_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b1_8xb32.py'

model = dict(backbone=dict(deploy=True))

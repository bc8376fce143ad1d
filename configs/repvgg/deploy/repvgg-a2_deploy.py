"""The deploy form of repvgg-a2_8xb32.py.

mmrepvgg reparameterize repvgg-a2_8xb32 SRC repvgg-a2_deploy.pth
mmrepvgg test repvgg-a2_deploy repvgg-a2_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a2_8xb32.py'

model = dict(backbone=dict(deploy=True))

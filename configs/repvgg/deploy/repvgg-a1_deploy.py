"""The deploy form of repvgg-a1_8xb32.py.

mmrepvgg reparameterize repvgg-a1_8xb32 SRC repvgg-a1_deploy.pth
mmrepvgg test repvgg-a1_deploy repvgg-a1_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a1_8xb32.py'

model = dict(backbone=dict(deploy=True))

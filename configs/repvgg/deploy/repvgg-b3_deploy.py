"""The deploy form of repvgg-b3_8xb32.py.

mmrepvgg reparameterize repvgg-b3_8xb32 SRC repvgg-b3_deploy.pth
mmrepvgg test repvgg-b3_deploy repvgg-b3_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b3_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-b2g4_8xb32.py.

mmrepvgg reparameterize repvgg-b2g4_8xb32 SRC repvgg-b2g4_deploy.pth
mmrepvgg test repvgg-b2g4_deploy repvgg-b2g4_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b2g4_8xb32.py'

model = dict(backbone=dict(deploy=True))

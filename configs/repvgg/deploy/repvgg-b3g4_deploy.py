"""The deploy form of repvgg-b3g4_8xb32.py.

mmrepvgg reparameterize repvgg-b3g4_8xb32 SRC repvgg-b3g4_deploy.pth
mmrepvgg test repvgg-b3g4_deploy repvgg-b3g4_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b3g4_8xb32.py'

model = dict(backbone=dict(deploy=True))

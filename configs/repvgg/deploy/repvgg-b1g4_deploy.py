"""The deploy form of repvgg-b1g4_8xb32.py.

mmrepvgg reparameterize repvgg-b1g4_8xb32 SRC repvgg-b1g4_deploy.pth
mmrepvgg test repvgg-b1g4_deploy repvgg-b1g4_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b1g4_8xb32.py'

model = dict(backbone=dict(deploy=True))

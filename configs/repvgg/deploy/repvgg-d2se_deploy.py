"""The deploy form of repvgg-d2se_8xb32.py.

mmrepvgg reparameterize repvgg-d2se_8xb32 SRC repvgg-d2se_deploy.pth
mmrepvgg test repvgg-d2se_deploy repvgg-d2se_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-d2se_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-b1g2_8xb32.py.

mmrepvgg reparameterize repvgg-b1g2_8xb32 SRC repvgg-b1g2_deploy.pth
mmrepvgg test repvgg-b1g2_deploy repvgg-b1g2_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b1g2_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-l2pse_8xb32.py.

mmrepvgg reparameterize repvgg-l2pse_8xb32 SRC repvgg-l2pse_deploy.pth
mmrepvgg test repvgg-l2pse_deploy repvgg-l2pse_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-l2pse_8xb32.py'

model = dict(backbone=dict(deploy=True, out_indices=(3,)))

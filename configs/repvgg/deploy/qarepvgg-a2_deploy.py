"""The deploy form of qarepvgg-a2_8xb32.py, which is that of RepVGG-A2.

python tools/reparameterize_model.py configs/repvgg/qarepvgg-a2_8xb32.py SRC qarepvgg-a2_deploy.pth
python tools/test.py configs/repvgg/deploy/qarepvgg-a2_deploy.py qarepvgg-a2_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a2_8xb32.py'

model = dict(backbone=dict(deploy=True))

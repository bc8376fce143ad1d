"""The deploy form of qarepvgg-a0_8xb32.py, which is that of RepVGG-A0.

python tools/reparameterize_model.py configs/repvgg/qarepvgg-a0_8xb32.py SRC qarepvgg-a0_deploy.pth
python tools/test.py configs/repvgg/deploy/qarepvgg-a0_deploy.py qarepvgg-a0_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a0_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of qarepvgg-b0_8xb32.py, which is that of RepVGG-B0.

python tools/reparameterize_model.py configs/repvgg/qarepvgg-b0_8xb32.py SRC qarepvgg-b0_deploy.pth
python tools/test.py configs/repvgg/deploy/qarepvgg-b0_deploy.py qarepvgg-b0_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-b0_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of qarepvgg-b1_8xb32.py, which is that of RepVGG-B1.

python tools/reparameterize_model.py configs/repvgg/qarepvgg-b1_8xb32.py SRC qarepvgg-b1_deploy.pth
python tools/test.py configs/repvgg/deploy/qarepvgg-b1_deploy.py qarepvgg-b1_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-b1_8xb32.py'

model = dict(backbone=dict(deploy=True))

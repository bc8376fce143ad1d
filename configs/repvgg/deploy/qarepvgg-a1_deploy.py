"""The deploy form of qarepvgg-a1_8xb32.py, which is that of RepVGG-A1.

python tools/reparameterize_model.py configs/repvgg/qarepvgg-a1_8xb32.py SRC qarepvgg-a1_deploy.pth
python tools/test.py configs/repvgg/deploy/qarepvgg-a1_deploy.py qarepvgg-a1_deploy.pth --metrics accuracy
"""

_base_ = '../qarepvgg-a1_8xb32.py'

model = dict(backbone=dict(deploy=True))

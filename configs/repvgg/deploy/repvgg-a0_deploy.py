"""The deploy form of repvgg-a0_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-a0_8xb32.py SRC repvgg-a0_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-a0_deploy.py repvgg-a0_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a0_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-b0_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-b0_8xb32.py SRC repvgg-b0_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-b0_deploy.py repvgg-b0_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b0_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-b1_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-b1_8xb32.py SRC repvgg-b1_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-b1_deploy.py repvgg-b1_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b1_8xb32.py'

model = dict(backbone=dict(deploy=True))

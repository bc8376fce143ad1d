"""The deploy form of repvgg-b1g4_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-b1g4_8xb32.py SRC repvgg-b1g4_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-b1g4_deploy.py repvgg-b1g4_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b1g4_8xb32.py'

model = dict(backbone=dict(deploy=True))

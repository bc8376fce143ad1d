"""The deploy form of repvgg-b3g4_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-b3g4_8xb32.py SRC repvgg-b3g4_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-b3g4_deploy.py repvgg-b3g4_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b3g4_8xb32.py'

model = dict(backbone=dict(deploy=True))

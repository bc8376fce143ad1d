"""The deploy form of repvgg-a1_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-a1_8xb32.py SRC repvgg-a1_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-a1_deploy.py repvgg-a1_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a1_8xb32.py'

model = dict(backbone=dict(deploy=True))

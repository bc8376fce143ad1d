"""The deploy form of repvgg-a2_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-a2_8xb32.py SRC repvgg-a2_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-a2_deploy.py repvgg-a2_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-a2_8xb32.py'

model = dict(backbone=dict(deploy=True))

"""The deploy form of repvgg-b2g2_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-b2g2_8xb32.py SRC repvgg-b2g2_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-b2g2_deploy.py repvgg-b2g2_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-b2g2_8xb32.py'

model = dict(backbone=dict(deploy=True))

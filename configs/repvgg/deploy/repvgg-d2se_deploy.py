"""The deploy form of repvgg-d2se_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-d2se_8xb32.py SRC repvgg-d2se_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-d2se_deploy.py repvgg-d2se_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-d2se_8xb32.py'

model = dict(backbone=dict(deploy=True))

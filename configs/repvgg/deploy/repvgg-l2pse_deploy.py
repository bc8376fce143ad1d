"""The deploy form of repvgg-l2pse_8xb32.py.

python tools/reparameterize_model.py configs/repvgg/repvgg-l2pse_8xb32.py SRC repvgg-l2pse_deploy.pth
python tools/test.py configs/repvgg/deploy/repvgg-l2pse_deploy.py repvgg-l2pse_deploy.pth --metrics accuracy
"""

_base_ = '../repvgg-l2pse_8xb32.py'

model = dict(backbone=dict(deploy=True, out_indices=(3,)))

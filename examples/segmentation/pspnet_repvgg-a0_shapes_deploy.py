"""The deploy form of pspnet_repvgg-a0_shapes.py.

python tools/reparameterize_model.py examples/segmentation/pspnet_repvgg-a0_shapes.py SRC pspnet_deploy.pth
python tools/test.py examples/segmentation/pspnet_repvgg-a0_shapes_deploy.py pspnet_deploy.pth
"""

_base_ = './pspnet_repvgg-a0_shapes.py'

model = dict(backbone=dict(deploy=True))

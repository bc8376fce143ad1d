"""The deploy form of pspnet_repvgg-a0_shapes.py.

.venv-onedl/bin/mmrepvgg reparameterize examples/segmentation/pspnet_repvgg-a0_shapes.py SRC pspnet_deploy.pth
.venv-onedl/bin/mmrepvgg test examples/segmentation/pspnet_repvgg-a0_shapes_deploy.py pspnet_deploy.pth
"""

_base_ = './pspnet_repvgg-a0_shapes.py'

model = dict(backbone=dict(deploy=True))

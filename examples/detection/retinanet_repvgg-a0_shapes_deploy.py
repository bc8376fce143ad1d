"""The deploy form of retinanet_repvgg-a0_shapes.py.

.venv-onedl/bin/mmrepvgg reparameterize examples/detection/retinanet_repvgg-a0_shapes.py SRC retinanet_deploy.pth
.venv-onedl/bin/mmrepvgg test examples/detection/retinanet_repvgg-a0_shapes_deploy.py retinanet_deploy.pth
"""

_base_ = './retinanet_repvgg-a0_shapes.py'

model = dict(backbone=dict(deploy=True))

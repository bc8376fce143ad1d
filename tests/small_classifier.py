"""The config of a small classifier. Not in conftest.py, a name that two folders have."""

SMALL_CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmrepvgg.RepVGG',
        arch=dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4, se_cfg=dict(ratio=4, divisor=1)),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)

"""RepVGG-A0 for ImageNet-1k. Other archs change backbone.arch alone: the head follows from it."""

model = dict(
    type='mmrepvgg.ImageClassifier',
    backbone=dict(type='mmrepvgg.RepVGG', arch='A0', out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)

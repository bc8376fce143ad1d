"""RetinaNet on RepVGG-A0 with an FPN, on generated shapes: minutes on a CPU, in the environment of test-onedl.

make .venv-onedl/installed
.venv-onedl/bin/python tools/prepare_shapes.py
.venv-onedl/bin/mmrepvgg train examples/detection/retinanet_repvgg-a0_shapes.py
coco/bbox_mAP to expect: 0.04 (mAP_50: 0.13) from random weights. That shows that everything works, and no more.
To start from a classifier add --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=CKPT model.backbone.init_cfg.prefix=backbone
"""

_base_ = '../../configs/_base_/default_runtime.py'

default_scope = 'mmdet'

model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    # strides 8, 16, 32; the classifier's 1280 channels of the last stage are read, too
    backbone=dict(type='mmrepvgg.RepVGG', arch='A0', out_indices=(1, 2, 3)),
    neck=dict(type='FPN', in_channels=[96, 192, 1280], out_channels=64, num_outs=3),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=3,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=3,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=300, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20
    ),
)

classes = ('disc', 'square', 'triangle')
image_size = (64, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='data/shapes',
        ann_file='boxes/train.json',
        data_prefix=dict(img='images/train'),
        metainfo=dict(classes=classes),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root='data/shapes',
        ann_file='boxes/val.json',
        data_prefix=dict(img='images/val'),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file='data/shapes/boxes/val.json', metric='bbox')
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
    # as for classification: no decay of biases and of the 3x3 and the 1x1 branch's batch norms
    paramwise_cfg=dict(
        bias_decay_mult=0.0,
        custom_keys={'branch_3x3.norm': dict(decay_mult=0.0), 'branch_1x1.norm': dict(decay_mult=0.0)},
    ),
)
train_cfg = dict(by_epoch=True, max_epochs=12, val_interval=4)
val_cfg = dict()
test_cfg = dict()
param_scheduler = dict(type='PolyLR', eta_min=1e-6, power=0.9, by_epoch=True, begin=0)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=1, save_best=None))
randomness = dict(seed=0)

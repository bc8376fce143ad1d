"""PSPNet on RepVGG-A0 with output stride 8, on generated shapes: minutes on a CPU, in the environment of test-onedl.

make .venv-onedl/installed
.venv-onedl/bin/python tools/prepare_shapes.py
.venv-onedl/bin/mmrepvgg train examples/segmentation/pspnet_repvgg-a0_shapes.py
mIoU to expect: 27 from random weights. These few epochs show that everything works; for a useful model train longer.
To start from a classifier add --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=CKPT model.backbone.init_cfg.prefix=backbone
"""

_base_ = '../../configs/_base_/default_runtime.py'

default_scope = 'mmseg'

norm_cfg = dict(type='BN')  # SyncBN on several GPUs; the switch takes both
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(64, 64),
    ),
    backbone=dict(
        type='mmrepvgg.RepVGG',
        arch='A0',
        out_indices=(2, 3),
        # the last two stages keep the resolution of the second, and dilate instead
        strides=(2, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='PSPHead',
        in_channels=1280,
        in_index=1,
        channels=128,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=4,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=192,
        in_index=0,
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=4,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

classes = ('background', 'disc', 'square', 'triangle')
palette = [[0, 0, 0], [220, 50, 47], [38, 139, 210], [133, 153, 0]]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root='data/shapes',
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        metainfo=dict(classes=classes, palette=palette),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root='data/shapes',
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        metainfo=dict(classes=classes, palette=palette),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    # as for classification: no decay of biases and of the 3x3 and the 1x1 branch's batch norms
    paramwise_cfg=dict(
        bias_decay_mult=0.0,
        custom_keys={'branch_3x3.norm': dict(decay_mult=0.0), 'branch_1x1.norm': dict(decay_mult=0.0)},
    ),
)
train_cfg = dict(by_epoch=True, max_epochs=8, val_interval=4)
val_cfg = dict()
test_cfg = dict()
param_scheduler = dict(type='PolyLR', eta_min=1e-6, power=0.9, by_epoch=True, begin=0)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=4, max_keep_ckpts=1, save_best=None))
randomness = dict(seed=0)

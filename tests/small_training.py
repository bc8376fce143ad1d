"""A folder with all that a training of a very small classifier needs: its config, its images and a checkpoint."""

from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from tiny_runner import TINY_BACKBONE

from mmrepvgg import build_classifier

CONFIG = f"""
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(**{TINY_BACKBONE!r}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16, loss=dict(type='CrossEntropyLoss')),
)
data_preprocessor = dict(num_classes=2)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='data',
        data_prefix='',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')],
    ),
)
test_dataloader = train_dataloader
test_evaluator = dict(type='Accuracy', topk=1)
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
"""


def write_small_training(folder: Path) -> None:
    """Write ``config.py``, two images in ``data``, and ``good.pth``, which can be resumed."""
    for number, label in enumerate('ab'):
        (folder / 'data' / label).mkdir(parents=True)
        cv2.imwrite(str(folder / 'data' / label / '0.png'), np.full((32, 32, 3), 100 * number, np.uint8))
    (folder / 'config.py').write_text(CONFIG)
    torch.manual_seed(0)
    weights = build_classifier(Config.fromfile(folder / 'config.py').model).state_dict()
    meta = dict(epoch=1, iter=1, dataset_meta=dict(classes=('a', 'b')))
    torch.save(dict(state_dict=weights, meta=meta), folder / 'good.pth')

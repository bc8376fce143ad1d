"""A Runner that trains a very small classifier on noise in a second."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset

TINY_ARCH = dict(num_blocks=(2, 2), width_factor=(1, 1))
TINY_BACKBONE = dict(
    type='mmrepvgg.RepVGG', arch=TINY_ARCH, base_channels=8, strides=(2, 2), dilations=(1, 1), out_indices=(1,)
)
PAPER_DECAY = dict(bias_decay_mult=0.0, custom_keys={'branch_3x3.norm': dict(decay_mult=0.0)})


class NoiseDataset(Dataset):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index)) * 2 + 1
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 3))


def make_model_config(backbone: dict | None = None) -> dict[str, Any]:
    head = dict(type='LinearClsHead', num_classes=3, in_channels=16, loss=dict(type='CrossEntropyLoss'))
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=TINY_BACKBONE | (backbone or {}),
        neck=dict(type='GlobalAveragePooling'),
        head=head,
        data_preprocessor=dict(type='ClsDataPreprocessor'),
    )


def make_runner(work_dir: Path, hooks: list[Any], backbone: dict | None = None, **options: Any) -> Runner:
    """A Runner of 2 epochs with 4 iterations of 8 images; ``options`` replace its arguments."""
    settings = dict(
        model=make_model_config(backbone),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(NoiseDataset(), batch_size=8, collate_fn=pseudo_collate),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.01), paramwise_cfg=PAPER_DECAY
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        custom_hooks=hooks,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
    )
    return Runner(**settings | options)

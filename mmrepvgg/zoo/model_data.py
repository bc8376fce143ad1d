"""The whole config of a model by name: with a folder of images as its data."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from ..data.folders import list_class_folders
from ..engine.metrics import make_evaluator
from .configs import base_configs, change_settings

_BATCH_SIZE = 32


def join_config(model: str, parts: Mapping[str, Any], data: Path | None, options: Iterable[str]) -> Config:
    """Make a config of the parts that a system gave.

    Args:
        model: System and name of the model.
        parts: ``model``, ``data_preprocessor``, ``pipeline`` and ``num_classes``.
        data: Folder of images; None for no images.
        options: Settings to change, in mmengine's syntax.

    Raises:
        ValueError: If an option does not fit.
    """
    num_classes = parts['num_classes']
    cfg = Config.fromfile(base_configs('default_runtime')[0])
    loader = dict(batch_size=_BATCH_SIZE, num_workers=0)
    train, test = _make_datasets(data, num_classes)
    cfg.merge_from_dict(
        dict(
            model=parts['model'],
            data_preprocessor=parts['data_preprocessor'],
            train_dataloader=dict(
                loader,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dict(train, pipeline=parts['pipeline']),
            ),
            test_dataloader=dict(
                loader,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(test, pipeline=parts['pipeline']),
            ),
            test_cfg=dict(),
            test_evaluator=make_evaluator(['accuracy'], num_classes),
            work_dir=f'work_dirs/{model.replace(":", "-").replace("/", "-")}',
        )
    )
    change_settings(cfg, options, model)
    return cfg


def _make_datasets(data: Path | None, num_classes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The images for calibration, which need no labels, and those for tests."""
    kind = 'mmrepvgg.ImageNet' if num_classes == len(IMAGENET_CATEGORIES) else 'mmrepvgg.CustomDataset'
    if data is None:
        return dict(type=kind), dict(type=kind)
    folders = list_class_folders(data) if data.is_dir() else []
    # the two parts that a training has
    train, test = (data / split if {'train', 'val'} <= {*folders} else data for split in ('train', 'val'))
    classes = list_class_folders(test) if test.is_dir() else []
    names: dict[str, Any] = {}
    if classes and kind == 'mmrepvgg.CustomDataset':
        names = dict(metainfo=dict(classes=classes))
    return (
        dict(type='mmrepvgg.CustomDataset', data_root=str(train), with_label=False),
        dict(type=kind, data_root=str(test), with_label=bool(classes), **names),
    )

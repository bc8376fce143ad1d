"""This package's steps in the place of those of mmpretrain and mmcv that a config names."""

from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets import transforms

from ..models.config_types import iterate_parts
from .resizing import RandomResizedCrop, ResizeEdge
from .wrappers import iterate_datasets, name_own_dataset, replace_reading

# The classes whose place is taken, where their backend is Pillow, by those that do the same faster.
FASTER = {transforms.RandomResizedCrop: RandomResizedCrop, transforms.ResizeEdge: ResizeEdge}


def use_own_reading(cfg: Config) -> None:
    """Change a config: all its pipelines read images by ``mmrepvgg.LoadImageFromFile``, and no image is left out."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            for dataset in iterate_datasets(cfg[name].dataset):
                dataset['type'] = name_own_dataset(dataset.get('type'))  # type: ignore[index]
                if 'pipeline' in dataset:
                    dataset['pipeline'] = replace_reading(dataset['pipeline'])  # type: ignore[index]


def use_faster_steps(cfg: Config) -> list[str]:
    """Change the training pipelines of a config that names mmpretrain's steps. Test images stay as they are.

    Returns:
        list[str]: Names of the steps that were replaced.
    """
    replaced: set[str] = set()
    if cfg.get('train_dataloader') is None:
        return []
    with TRANSFORMS.switch_scope_and_registry(cfg.get('default_scope') or 'mmpretrain') as registry:
        for dataset in iterate_datasets(cfg.train_dataloader.dataset):
            for step in iterate_parts(dataset.get('pipeline')):
                kind = registry.get(step['type']) if isinstance(step['type'], str) else step['type']
                if kind in FASTER and step.get('backend') == 'pillow':
                    step['type'] = f'mmrepvgg.{FASTER[kind].__name__}'
                    replaced.add(FASTER[kind].__name__)
    return sorted(replaced)

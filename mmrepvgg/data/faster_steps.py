"""Faster steps in the place of those of mmpretrain and mmcv that a config names. The images stay the same."""

from mmcv import transforms as mmcv_transforms
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets import transforms

from ..models.config_types import iterate_parts
from .reading import LoadImageFromFile
from .resizing import RandomResizedCrop, ResizeEdge
from .wrappers import iterate_datasets

# The class that a config names -> the settings with which it can be replaced, and the class that does the same.
FASTER = {
    mmcv_transforms.LoadImageFromFile: ({}, LoadImageFromFile),
    transforms.RandomResizedCrop: ({'backend': 'pillow'}, RandomResizedCrop),
    transforms.ResizeEdge: ({'backend': 'pillow'}, ResizeEdge),
}


def use_faster_steps(cfg: Config) -> list[str]:
    """Change the training pipelines of a config that names the steps of mmpretrain.

    Returns:
        list[str]: Names of the steps that were replaced.
    """
    replaced: list[str] = []
    with TRANSFORMS.switch_scope_and_registry(cfg.get('default_scope') or 'mmpretrain') as registry:
        for dataset in iterate_datasets(cfg.train_dataloader.dataset):
            for step in iterate_parts(dataset.get('pipeline')):
                kind = registry.get(step['type']) if isinstance(step['type'], str) else step['type']
                settings, faster = FASTER.get(kind, ({}, None))
                if faster and all(step.get(name) == value for name, value in settings.items()):
                    step['type'] = f'mmrepvgg.{faster.__name__}'
                    replaced.append(faster.__name__)
    return sorted(set(replaced))

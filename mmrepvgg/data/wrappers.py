"""The settings of data sets, also of those that wrap others, such as ConcatDataset, RepeatDataset and KFoldDataset.

Imports no torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..models.config_types import get_type_name

# Wrappers that show images several times. They are left out where each image must come once.
_REPEATING = ('RepeatDataset', 'ClassBalancedDataset')


def iterate_datasets(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of the data sets that read images: those in a wrapper, or ``settings`` themselves."""
    if 'datasets' in settings:
        for part in settings['datasets']:
            yield from iterate_datasets(part)
    elif 'dataset' in settings:
        yield from iterate_datasets(settings['dataset'])
    else:
        yield settings


def replace_pipeline(settings: Mapping[str, Any], pipeline: Any) -> dict[str, Any]:
    """Change a data set's settings: it gets ``pipeline``, and has every image once."""
    if 'datasets' in settings:
        return dict(settings, datasets=[replace_pipeline(part, pipeline) for part in settings['datasets']])
    if 'dataset' in settings:
        inner = replace_pipeline(settings['dataset'], pipeline)
        return inner if get_type_name(settings.get('type')) in _REPEATING else dict(settings, dataset=inner)
    return dict(settings, pipeline=pipeline)


def get_dataset(cfg: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    """The settings of a split's data set, with this package's data sets of folders.

    Args:
        cfg: The config.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: If the config has no dataloader for the split.
    """
    if cfg.get(f'{split}_dataloader') is None:
        raise ValueError(f'the config must have a {split}_dataloader, which gives the images')
    return _replace_datasets(cfg[f'{split}_dataloader']['dataset'])


def get_test_pipeline(cfg: Mapping[str, Any]) -> list[Any]:
    """The steps of the pipeline that reads test images, with this package's reading step.

    Raises:
        ValueError: If the config has no test data.
    """
    return replace_reading(next(iterate_datasets(get_dataset(cfg, 'test')))['pipeline'])


def replace_reading(pipeline: Iterable[Any]) -> list[Any]:
    """The steps with ``mmrepvgg.LoadImageFromFile`` in the place of mmcv's, which has the same arguments.

    Configs name mmcv's, since mmpretrain's inferencers and tools look for that name.
    """
    return [
        dict(step, type='mmrepvgg.LoadImageFromFile') if _names(step['type'], 'LoadImageFromFile') else step
        for step in pipeline
    ]


def name_own_dataset(dataset_type: Any) -> Any:
    """``mmrepvgg.CustomDataset`` and ``mmrepvgg.ImageNet`` for mmpretrain's, and other types as they are.

    They have the same arguments, and leave out no image in silence.
    """
    own = [name for name in ('CustomDataset', 'ImageNet') if _names(dataset_type, name)]
    return f'mmrepvgg.{own[0]}' if own else dataset_type


def _replace_datasets(settings: Mapping[str, Any]) -> dict[str, Any]:
    if 'datasets' in settings:
        return dict(settings, datasets=[_replace_datasets(part) for part in settings['datasets']])
    if 'dataset' in settings:
        return dict(settings, dataset=_replace_datasets(settings['dataset']))
    return dict(settings, type=name_own_dataset(settings.get('type')))


def _names(part_type: Any, name: str) -> bool:
    """Whether a type is this class of mmcv's or mmpretrain's."""
    if isinstance(part_type, str):
        return part_type in (name, f'mmpretrain.{name}')
    module = getattr(part_type, '__module__', '')
    return getattr(part_type, '__name__', '') == name and module.startswith(('mmcv.', 'mmpretrain.'))

"""Images, and labels where there are some, from a config's own data sets, as its test pipeline prepares them."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor

from .layout import SPLITS


def iterate_samples(
    cfg: Config, split: str, num_samples: int | None = None, *, seed: int = 0, batch_size: int = 16
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Read images of a split of the config's data, all through its test pipeline: what a deployed model will see.

    Args:
        cfg: The config.
        split: ``'train'`` for ``train_dataloader``'s data set, ``'test'`` for ``test_dataloader``'s.
        num_samples: How many, drawn without repetition; None or more than there are: all.
        seed: Of the draw. The same seed gives the same images in the same order.
        batch_size: Images in a batch; the last one may be smaller.

    Yields:
        Images ``(N, C, H, W)`` as the pipeline packs them (uint8, before the data preprocessor), and labels ``(N,)``,
        or None where an image has none.

    Raises:
        ValueError: If the split is unknown, not in the config or empty, or the pipeline gives images of different
            sizes.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}, got {split!r}')
    for name, use in (('test', 'pipeline is'), (split, 'images are')):
        if cfg.get(f'{name}_dataloader') is None:
            raise ValueError(f'the config must have a {name}_dataloader, whose {use} needed here')
    settings = _use_pipeline(cfg[f'{split}_dataloader'].dataset, _find_pipeline(cfg.test_dataloader.dataset))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        dataset: Any = DATASETS.build(settings)
    if not len(dataset):
        raise ValueError(f'the {split} data of the config holds no image')
    indices = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:num_samples].tolist()
    for start in range(0, len(indices), batch_size):
        batch = [dataset[index] for index in indices[start : start + batch_size]]
        if len({sample['inputs'].shape for sample in batch}) > 1:
            raise ValueError(
                "the config's test pipeline gives images of different sizes; add a crop, for example "
                "dict(type='CenterCrop', crop_size=224)"
            )
        labels = [sample['data_samples'].get('gt_label') for sample in batch]
        is_labelled = all(label is not None for label in labels)
        yield torch.stack([sample['inputs'] for sample in batch]), torch.cat(labels) if is_labelled else None


def _use_pipeline(settings: Any, pipeline: Any) -> dict[str, Any]:
    """A data set's settings with another pipeline; of a wrapper (RepeatDataset and its like) what is in it."""
    if 'dataset' in settings:
        return _use_pipeline(settings['dataset'], pipeline)
    if 'datasets' in settings:
        return dict(settings, datasets=[_use_pipeline(part, pipeline) for part in settings['datasets']])
    return dict(settings, pipeline=pipeline)


def _find_pipeline(settings: Any) -> Any:
    while 'pipeline' not in settings:
        settings = settings['dataset'] if 'dataset' in settings else settings['datasets'][0]
    return settings['pipeline']

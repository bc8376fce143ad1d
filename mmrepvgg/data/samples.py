"""Images, and labels where there are some, from a config's own data sets, as its test pipeline prepares them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor
from torch.utils.data import Dataset

from ..printable import make_printable
from .classes import check_config_classes
from .images import UnreadableImageError, explain_failure
from .layout import SPLITS
from .transparency import warn_of_transparent_data
from .wrappers import get_dataset, get_test_pipeline, replace_pipeline


class Samples(Dataset):
    """A split of a config's data, each image once, through the test pipeline: what a deployed model will see.

    Args:
        cfg: The config.
        split: ``'train'`` for ``train_dataloader``'s data set, ``'test'`` for ``test_dataloader``'s.
        trained: Names of the classes that the model was trained on, if they are known. The labels of test images must
            be theirs.

    Raises:
        ValueError: If the split is unknown, not in the config or empty.
        DataError: If the test images are of other classes than the model.
    """

    def __init__(self, cfg: Config, split: str, trained: Sequence[str] = ()):
        if split not in SPLITS:
            raise ValueError(f'`split` must be one of {", ".join(SPLITS)}, got {split!r}')
        settings = replace_pipeline(get_dataset(cfg, split), get_test_pipeline(cfg))
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            self._dataset: Any = DATASETS.build(settings)
        if not len(self._dataset):
            raise ValueError(f'the {split} data of the config holds no image')
        warn_of_transparent_data(self._dataset, settings)
        if split == 'test':
            check_config_classes(cfg, self._dataset, trained)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """What the pipeline packs: ``inputs`` and ``data_samples``.

        Raises:
            UnreadableImageError: If the image can't be read; names it.
        """
        path = str(self.get_info(index).get('img_path', f'image {index}'))  # some data sets have no files
        try:
            sample = self._dataset[index]
        except Exception as error:
            raise UnreadableImageError(f'{make_printable(path)} can not be read: {explain_failure(error)}') from error
        # a data set may put another image in the place of one that it can't read
        if str(sample['data_samples'].get('img_path', path)) != path:
            raise UnreadableImageError(f'{make_printable(path)} can not be read')
        return sample

    def get_info(self, index: int) -> dict[str, Any]:
        """What is known of an image without reading it, such as ``img_path`` and ``gt_label``."""
        return self._dataset.get_data_info(index)

    def iterate(
        self, num_samples: int | None = None, *, seed: int = 0, batch_size: int = 16
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Draw images and read them.

        Args:
            num_samples: How many, drawn without repetition; None or more than there are: all.
            seed: Of the draw. The same seed gives the same images in the same order.
            batch_size: Images in a batch; the last one may be smaller.

        Yields:
            Images ``(N, C, H, W)`` as the pipeline packs them (uint8, before the data preprocessor), and labels
            ``(N,)``, or None where an image has none or several.

        Raises:
            ValueError: If the pipeline gives images of different sizes.
            UnreadableImageError: If an image can't be read; names it.
        """
        indices = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:num_samples].tolist()
        for start in range(0, len(indices), batch_size):
            batch = [self[index] for index in indices[start : start + batch_size]]
            if len({sample['inputs'].shape for sample in batch}) > 1:
                raise ValueError(
                    "the config's test pipeline gives images of different sizes; add a crop, for example "
                    "dict(type='CenterCrop', crop_size=224)"
                )
            labels = [sample['data_samples'].get('gt_label') for sample in batch]
            has_labels = all(label is not None and label.numel() == 1 for label in labels)
            yield torch.stack([sample['inputs'] for sample in batch]), torch.cat(labels) if has_labels else None


def iterate_samples(
    cfg: Config, split: str, num_samples: int | None = None, *, trained: Sequence[str] = (), **options: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Draw images of a split of a config's data: :meth:`Samples.iterate` of ``Samples(cfg, split, trained)``."""
    yield from Samples(cfg, split, trained).iterate(num_samples, **options)

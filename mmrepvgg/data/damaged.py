"""A training that goes on without its damaged images, and says which they were."""

from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from ..models.config_types import get_type_name
from ..printable import make_printable
from .images import UnreadableImageError

# Name in a sample's metainfo of the images whose place it took.
SKIPPED = 'skipped_images'
_MAX_SKIPPED = 100


class SkipDamaged(Dataset):
    """A data set in which another image, drawn at random, takes the place of one that can't be read.

    So every batch keeps its size, and no process of a distributed training waits for another. The sample in that place
    says whose it took: ``data_samples.skipped_images`` has the errors. ``SkippedImagesHook`` logs them.

    Args:
        dataset: Data set, or its settings. Its pipeline must begin with ``mmrepvgg.LoadImageFromFile``.
    """

    def __init__(self, dataset: Any):
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict[str, Any]:
        return self.dataset.metainfo

    def full_init(self) -> None:
        self.dataset.full_init()

    def get_data_info(self, index: int) -> dict[str, Any]:
        return self.dataset.get_data_info(index)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read an image, or another one.

        Raises:
            UnreadableImageError: If so many images in a row can't be read that the whole data must be damaged.
        """
        skipped: list[str] = []
        while True:
            try:
                sample = self.dataset[index]
            except UnreadableImageError as error:
                skipped.append(f'{make_printable(str(self.get_data_info(index)["img_path"]))}: {error.reason}')
                if len(skipped) == _MAX_SKIPPED:
                    raise UnreadableImageError(
                        f'{len(skipped)} images, drawn one after the other, can not be read, so most of the data must '
                        f'be damaged or missing; the last one is {skipped[-1]}'
                    ) from error
                index = np.random.randint(len(self))
            else:
                if skipped:
                    sample['data_samples'].set_field(tuple(skipped), SKIPPED, field_type='metainfo')
                return sample


def skip_damaged_images(cfg: Config) -> None:
    """Change a config: the training goes on without damaged images, and logs them at the end of each epoch."""
    dataset = cfg.train_dataloader.dataset
    if get_type_name(dataset.get('type')) == SkipDamaged.__name__:
        return
    cfg.train_dataloader.dataset = dict(type='mmrepvgg.SkipDamaged', dataset=dataset)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='mmrepvgg.SkippedImagesHook')]

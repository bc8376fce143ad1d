"""Read every image of a config's data once, and name those that can't be read: before a training, not within it."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from ..models.config_types import get_type_name
from .images import explain_failure
from .wrappers import get_dataset, iterate_datasets, replace_reading

_BATCH_SIZE = 64


class _Reading(Dataset):
    """Reads the images of a data set, and gives the path and the reason of each that can't be read."""

    def __init__(self, settings: dict[str, Any], scope: str):
        with DefaultScope.overwrite_default_scope(scope):
            self._dataset: Any = DATASETS.build(settings)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[str, str] | None:
        try:
            self._dataset[index]
        except Exception as error:
            return str(self._dataset.get_data_info(index).get('img_path', f'image {index}')), explain_failure(error)
        return None


class ImageCheck:
    """The images of a config's training, validation and test data, each folder or list once.

    Args:
        cfg: The config.
        num_workers: Processes that read. 0 reads in the process itself.

    Raises:
        ValueError: If the config has no data.
    """

    def __init__(self, cfg: Config, num_workers: int = 0):
        found: list[dict[str, Any]] = []
        for split in ('train', 'val', 'test'):
            if cfg.get(f'{split}_dataloader') is not None:
                for settings in iterate_datasets(get_dataset(cfg, split)):
                    settings = dict(settings, pipeline=_keep_reading(settings['pipeline']), test_mode=True)
                    if settings not in found:
                        found.append(settings)
        if not found:
            raise ValueError('the config must have a train_dataloader, a val_dataloader or a test_dataloader')
        scope = cfg.get('default_scope', 'mmpretrain')
        self._images: ConcatDataset = ConcatDataset([_Reading(settings, scope) for settings in found])
        self._num_workers = num_workers

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[tuple[str, str] | None]:
        """Read the images: None for each that can be read, its path and the reason for the others."""
        loader = DataLoader(self._images, _BATCH_SIZE, num_workers=self._num_workers, collate_fn=list)
        for batch in loader:
            yield from batch


def _keep_reading(pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps of a pipeline that read images, as a training reads them."""
    return [step for step in replace_reading(pipeline) if get_type_name(step['type']).startswith('LoadImage')]

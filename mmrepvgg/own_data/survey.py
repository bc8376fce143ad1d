"""Read every image once, as a training would, and note what it is like."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..data.images import UnreadableImageError, explain_failure
from ..data.reading import LoadImageFromFile
from ..data.transparency import is_transparent
from ..progress import track
from .readings import Reading

WHITE = (255, 255, 255)
_BATCH_SIZE = 64
# From so many images on another process saves more time than its start takes.
_IMAGES_PER_WORKER = 500


class _Images(Dataset):
    def __init__(self, paths: Sequence[str]):
        self._paths = paths
        self._read = LoadImageFromFile(background=WHITE)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Reading:
        path = self._paths[index]
        try:
            image = self._read(dict(img_path=path))['img']  # (H, W, 3)
        except UnreadableImageError as error:
            return Reading(explain_failure(error))
        height, width = image.shape[:2]
        digest = hashlib.sha256(f'{height} {width} '.encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        # a look at some pixels is enough for most
        is_one_colour = all(bool((part == image[0, 0]).all()) for part in (image[::16, ::16], image))
        return Reading('', digest.digest()[:16], height, width, is_transparent(path), is_one_colour)


def survey_images(paths: Sequence[str]) -> list[Reading]:
    """Read images, in as many processes as there are cores if there are many images."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    workers = min(cores, len(paths) // _IMAGES_PER_WORKER)
    loader = DataLoader(_Images(paths), _BATCH_SIZE, num_workers=workers, collate_fn=list)
    readings: list[Reading] = []
    for batch in track(loader, 'reading images', len(loader)):
        readings += batch
    return readings

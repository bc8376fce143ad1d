"""Inputs on which two forms of a model are compared."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor

from .images import ImageReader, UnreadableImageError, list_images


def make_noise(channels: int, size: int = 128, num_images: int = 2, seed: int = 0) -> Tensor:
    """Seeded noise ``(num_images, channels, size, size)``, distributed as normalised images are."""
    return torch.randn(num_images, channels, size, size, generator=torch.Generator().manual_seed(seed))


def find_input_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of what the config's test pipeline gives.

    Raises:
        ValueError: If that depends on the image.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        steps = [step for step in cfg.test_dataloader.dataset.pipeline if 'LoadImage' not in step['type']]
        pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    sizes = []
    # a wide image and a tall one
    for shape in ((480, 640), (640, 480)):
        image = dict(img=np.zeros((*shape, 3), np.uint8), img_shape=shape, ori_shape=shape, gt_label=0)
        sizes.append(tuple(pipeline(image)['inputs'].shape[1:]))
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the config's test pipeline gives images of no fixed size ({sizes[0]} and {sizes[1]} for a wide and a "
            'tall one); say which with --input-size'
        )
    return sizes[0]


def iterate_images(
    path: Path, cfg: Config, preprocessor: Callable[[dict[str, Any]], dict[str, Any]], batch_size: int = 16
) -> Iterator[Tensor]:
    """Read an image, or the images below a folder, by the config's test pipeline.

    Yields:
        Batches ``(N, C, H, W)`` of at most ``batch_size``, as ``preprocessor`` (a model's) makes them.

    Raises:
        ValueError: If there is no image.
        UnreadableImageError: If one of them is damaged; names it.
    """
    files, read = [file for file, _ in list_images([path])], ImageReader(cfg)
    for start in range(0, len(files), batch_size):
        samples = []
        for file in files[start : start + batch_size]:
            try:
                samples.append(read(file))
            except UnreadableImageError as error:
                raise UnreadableImageError(f'{file} can not be read: {error}') from error
        yield preprocessor(pseudo_collate(samples))['inputs']

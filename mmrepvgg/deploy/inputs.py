"""Inputs on which the two forms of a model are compared."""

from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import Tensor, nn

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.ppm', '.tif', '.tiff')


def make_noise(channels: int, size: int = 128, num_images: int = 2, seed: int = 0) -> Tensor:
    """Seeded noise ``(num_images, channels, size, size)``, distributed as normalised images are."""
    return torch.randn(num_images, channels, size, size, generator=torch.Generator().manual_seed(seed))


def iterate_images(path: Path, cfg: Config, preprocessor: nn.Module, batch_size: int = 16) -> Iterator[Tensor]:
    """Read an image, or the images below a folder, by the config's test pipeline.

    Yields:
        Normalised batches ``(N, C, H, W)`` of at most ``batch_size``.

    Raises:
        ValueError: If there is no image.
    """
    files = sorted(p for p in path.rglob('*') if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ValueError(f'{path} holds no image ({", ".join(IMAGE_SUFFIXES)})')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        steps = [step for step in cfg.test_dataloader.dataset.pipeline if not step['type'].endswith('LoadAnnotations')]
        pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    for start in range(0, len(files), batch_size):
        # a label that no file has: the pipeline packs it, and nothing reads it
        samples = [pipeline(dict(img_path=str(file), gt_label=0)) for file in files[start : start + batch_size]]
        yield preprocessor(pseudo_collate(samples))['inputs']

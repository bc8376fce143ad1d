"""Seeded noise instead of images, for comparisons that need no data."""

import torch
from torch import Tensor


def make_noise(channels: int, size: tuple[int, int] = (128, 128), num_images: int = 2, seed: int = 0) -> Tensor:
    """Noise ``(num_images, channels, *size)``, distributed as normalised images are."""
    return torch.randn(num_images, channels, *size, generator=torch.Generator().manual_seed(seed))

"""The resizing steps of ImageNet's pipelines: crops and pixels as Pillow's, in a fraction of its time.

Pillow's own resize is most of the time of a pipeline: a piece of an array must become an image of Pillow's first, and
its filter is not vectorised. PyTorch has the same filter for arrays of bytes, vectorised for AVX2; elsewhere it is not
faster than Pillow.
"""

from typing import Any

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.datasets import transforms

from .headers import MAX_PIXELS
from .images import UnreadableImageError

_FILTERS = ('bilinear', 'bicubic')
_HAS_FAST_FILTERS = torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')


def resize_like_pillow(image: np.ndarray, size: tuple[int, int], interpolation: str = 'bilinear') -> np.ndarray:
    """Resize as Pillow does, whose filters are as wide as the reduction needs (antialiasing).

    Args:
        image: ``(H, W, 3)`` of bytes for the fast way. Pillow itself resizes other images, and all on CPUs without
            AVX2.
        size: Height and width to resize to.
        interpolation: ``'bilinear'`` or ``'bicubic'`` for the fast way; Pillow knows others.

    Returns:
        np.ndarray: A contiguous array. Its values differ from Pillow's by rounding only: by at most 1 of 255 for
        ``'bilinear'``, by at most 2 for ``'bicubic'``, and most are equal.
    """
    image = np.require(image, requirements=['C', 'W'])  # Pillow takes 100 times as long to copy a piece
    if not _HAS_FAST_FILTERS or interpolation not in _FILTERS or image.dtype != np.uint8 or image.shape[2:] != (3,):
        return mmcv.imresize(image, size[::-1], interpolation=interpolation, backend='pillow')
    pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)  # (1, 3, H, W), channels last
    resized = F.interpolate(pixels, size=tuple(size), mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


class RandomResizedCrop(transforms.RandomResizedCrop):
    """mmpretrain's ``RandomResizedCrop(..., backend='pillow')``: the same crops, resized by ``resize_like_pillow``.

    All arguments are mmpretrain's, but the default of ``backend`` is ``'pillow'``. ``'cv2'``, which does not antialias,
    is mmpretrain's.
    """

    def __init__(self, *args: Any, backend: str = 'pillow', **options: Any):
        super().__init__(*args, backend=backend, **options)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        if self.backend != 'pillow':
            return super().transform(results)
        image = results['img']
        top, left, height, width = self.rand_crop_params(image)
        crop = image[top : top + height, left : left + width]
        results['img'] = resize_like_pillow(crop, self.scale, self.interpolation)
        results['img_shape'] = results['img'].shape
        return results


class ResizeEdge(transforms.ResizeEdge):
    """mmpretrain's ``ResizeEdge(..., backend='pillow')``, resized by ``resize_like_pillow``.

    All arguments are mmpretrain's, but the default of ``backend`` is ``'pillow'``. ``'cv2'``, which does not antialias,
    is mmpretrain's.
    """

    def __init__(self, *args: Any, backend: str = 'pillow', **options: Any):
        super().__init__(*args, backend=backend, **options)

    def _resize_img(self, results: dict[str, Any]) -> None:
        if self.backend != 'pillow':
            return super()._resize_img(results)
        image, (width, height) = results['img'], results['scale']
        if width * height > MAX_PIXELS:
            shape = f'{image.shape[1]} x {image.shape[0]}'
            raise UnreadableImageError.of(
                results.get('img_path', 'an image'),
                f'it has {shape} pixels, and resized as the pipeline asks it would have {width} x {height}',
            )
        results['img'] = resize_like_pillow(image, (height, width), self.interpolation)
        results['img_shape'] = (height, width)
        results['scale_factor'] = (width / image.shape[1], height / image.shape[0])
        return None

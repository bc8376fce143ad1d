"""The reading step of a pipeline: what OpenCV can't decode, Pillow may, and an error names the file."""

from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
from mmcv import transforms
from mmengine import fileio
from PIL import Image, ImageOps, UnidentifiedImageError

from .headers import MAX_PIXELS, check_range, ignoring_pillows_limit, open_header
from .images import UnreadableImageError, explain_failure


class LoadImageFromFile(transforms.LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with the same arguments. An image that its decoder refuses is read by Pillow.

    Args:
        *args: mmcv's arguments.
        max_pixels: Largest width times height. The header of a larger image is read, and nothing more.
        background: Colour (red, green, blue) on which transparent images are composed. Without one, transparency is
            dropped, as mmcv does: the colours that lie under it are shown.
        **options: mmcv's arguments.

    Raises:
        ValueError: If an argument is out of range.
        UnreadableImageError: If the file is missing or too large, or no decoder can read it. The message names it.
    """

    def __init__(
        self, *args: Any, max_pixels: int = MAX_PIXELS, background: Sequence[int] | None = None, **options: Any
    ):
        super().__init__(*args, **options)
        if max_pixels < 1:
            raise ValueError(f'`max_pixels` must be at least 1, got {max_pixels}')
        if background is not None:
            if len(background) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in background):
                raise ValueError(f'`background` must be three whole numbers from 0 to 255, got {background}')
            if self.color_type != 'color':
                raise ValueError(f"`background` needs color_type='color', got {self.color_type!r}")
        self.max_pixels = max_pixels
        self.background = None if background is None else tuple(background)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        if 'img_path' not in results and 'img' in results:
            return results  # mmpretrain's inferencers read images themselves, and leave out mmcv's step only
        path = results['img_path']
        try:
            image = self._read(path)
        except Exception as error:
            if self.ignore_empty:
                return None
            raise _explain(path, error) from error
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        """An image ``(H, W, 3)`` in BGR, or ``(H, W)`` in grey."""
        client = self.file_client_args and fileio.FileClient.infer_client(self.file_client_args, path)
        content = client.get(path) if client else fileio.get(path, backend_args=self.backend_args)
        header = open_header(content)
        width, height = header.size
        if width * height > self.max_pixels:
            raise ValueError(
                f'it has {width} x {height} pixels, and `max_pixels` of the step that reads it allows '
                f'{self.max_pixels:,}'
            )
        if self.background is not None and header.has_transparency_data:
            return self._compose(header)
        try:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
            if image is not None:
                return image
        except Exception:  # of any type: OpenCV's own, an assertion
            pass
        check_range(header)
        with ignoring_pillows_limit():
            return mmcv.imfrombytes(content, flag=self.color_type, backend='pillow')

    def _compose(self, image: Image.Image) -> np.ndarray:
        layer = ImageOps.exif_transpose(image).convert('RGBA')
        composed = Image.alpha_composite(Image.new('RGBA', layer.size, self.background), layer)
        return np.ascontiguousarray(np.asarray(composed)[:, :, 2::-1])  # BGR


def _explain(path: str, error: Exception) -> UnreadableImageError:
    if isinstance(error, UnidentifiedImageError):
        reason = 'the file is empty, or no image of a known format'
    elif type(error) is ValueError:
        reason = ' '.join(str(error).split())
    else:
        reason = explain_failure(error)
    return UnreadableImageError.of(path, reason)

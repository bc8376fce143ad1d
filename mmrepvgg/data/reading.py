"""The reading step of a pipeline: what OpenCV can't decode, Pillow may, and an error names the file."""

from typing import Any

from mmcv import transforms
from PIL import UnidentifiedImageError

from .images import UnreadableImageError, explain_failure


class LoadImageFromFile(transforms.LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with the same arguments. An image that its decoder refuses is read by Pillow.

    Raises:
        UnreadableImageError: If the file is missing, or no decoder can read it. The message names it.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._pillow = transforms.LoadImageFromFile(*args, **{**options, 'imdecode_backend': 'pillow'})
        self._pillow.ignore_empty = False

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return super().transform(results)
        except Exception:
            try:
                return self._pillow.transform(results)
            except Exception as error:
                raise _explain(results['img_path'], error) from error


def _explain(path: str, error: Exception) -> UnreadableImageError:
    if isinstance(error, UnidentifiedImageError):
        reason = 'the file is empty, or no image of a known format'
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = explain_failure(error)
    explained = UnreadableImageError(
        f'{path} can not be read: {reason}; repair or remove it. `train` goes on without such images with '
        '`skip_damaged`'
    )
    explained.reason = reason
    return explained

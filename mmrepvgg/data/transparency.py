"""Images whose transparency the reading step drops: what lies under it is shown to the model, and is seldom meant."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import fileio
from mmengine.dist import is_main_process

from ..printable import make_printable
from .headers import MAX_PIXELS, open_header
from .wrappers import iterate_datasets

# So many images of a data set are looked at, in even steps.
_NUM_LOOKED_AT = 50


def warn_of_transparency(paths: Sequence[str], pipeline: Sequence[Mapping[str, Any]]) -> None:
    """Warn if a data set has transparent images, and its reading step no ``background``.

    Args:
        paths: The images. Some of them are looked at, in even steps.
        pipeline: The steps that read them.
    """
    if not is_main_process() or any(step.get('background') is not None for step in pipeline):
        return
    looked_at = paths[:: max(1, len(paths) // _NUM_LOOKED_AT)]
    found = [path for path in looked_at if is_transparent(path)]
    if found:
        warnings.warn(
            f'{len(found)} of {len(looked_at)} images that were looked at are transparent in places ('
            f'{make_printable(found[0])}{", ..." if len(found) > 1 else ""}), and the model sees what lies there; '
            'to put such images on a colour, give it to the step that reads them: '
            "dict(type='mmrepvgg.LoadImageFromFile', background=[255, 255, 255])",
            stacklevel=2,
        )


def warn_of_transparent_data(dataset: Any, settings: Mapping[str, Any]) -> None:
    """As :func:`warn_of_transparency`, for a data set that was built from ``settings``. One without files passes."""
    if not hasattr(dataset, 'get_data_info'):  # one that is not mmengine's
        return
    step = max(1, len(dataset) // _NUM_LOOKED_AT)
    infos = [dataset.get_data_info(index) for index in range(0, len(dataset), step)]
    pipeline = next(iterate_datasets(settings)).get('pipeline') or []
    warn_of_transparency([str(info['img_path']) for info in infos if 'img_path' in info], pipeline)


def is_transparent(path: str) -> bool:
    """Whether an image is transparent in places. One that can not be read is not."""
    try:
        image = open_header(fileio.get(path))
        width, height = image.size
        if not image.has_transparency_data or width * height > MAX_PIXELS:
            return False
        return image.convert('RGBA').getchannel('A').getextrema()[0] < 255  # type: ignore[operator]  # one band
    except Exception:  # a damaged one is named when it is read
        return False

"""The test pipeline for the page that runs in a browser, whose script can resize and crop."""

from collections.abc import Mapping
from typing import Any

from ..data.headers import MAX_PIXELS
from ..data.plain_pipelines import Pipeline
from ..models.config_types import get_type_name

# What the script can do as Python does it, by the backend and the interpolation of a config.
_FILTERS = {
    ('pillow', 'bilinear'): 'pillow-bilinear',
    ('pillow', 'bicubic'): 'pillow-bicubic',
    ('cv2', 'bilinear'): 'opencv-bilinear',
}


class StepError(ValueError):
    """A pipeline has a step that the page can not do."""


def list_steps(pipeline: Pipeline) -> dict[str, Any]:
    """How a page makes an input of a picture.

    Returns:
        dict: ``steps``, each ``{"crop": [h, w]}``, or ``{"edge": short edge, "filter"}``, or ``{"size": [h, w],
        "filter"}``; ``background``, the colour under transparent parts, or None; and ``max_pixels``.

    Raises:
        StepError: If a step is another one, or does something else.
    """
    reading: Mapping[str, Any] = {}
    steps: list[dict[str, Any]] = []
    for step in pipeline:
        match get_type_name(step['type']):
            case 'LoadImageFromFile':
                reading = step
            case 'Resize':
                width, height = _make_pair(step.get('scale'))
                steps.append(dict(size=[height, width], filter=_find_filter(step, 'cv2')))
            case 'ResizeEdge':
                default = 'pillow' if step['type'].startswith('mmrepvgg.') else 'cv2'
                steps.append(dict(edge=step['scale'], filter=_find_filter(step, default)))
            case 'CenterCrop':
                width, height = _make_pair(step['crop_size'])
                steps.append(dict(crop=[height, width]))
    if reading.get('color_type', 'color') != 'color':
        raise StepError(f'the page reads images in colour, and the pipeline as {reading["color_type"]!r}')
    return dict(steps=steps, background=reading.get('background'), max_pixels=reading.get('max_pixels') or MAX_PIXELS)


def _make_pair(size: Any) -> tuple[int, int]:
    if size is None:
        raise StepError('the page resizes to a size in pixels, and a Resize of the pipeline has no scale')
    return (size, size) if isinstance(size, int) else tuple(size)


def _find_filter(step: Mapping[str, Any], default: str) -> str:
    wanted = (step.get('backend', default), step.get('interpolation', 'bilinear'))
    if wanted not in _FILTERS or step.get('keep_ratio') or step.get('edge', 'short') != 'short':
        allowed = ', '.join(f'{backend} {interpolation}' for backend, interpolation in _FILTERS)
        raise StepError(
            f'the page can resize the short edge, or to a size, by {allowed}; the pipeline has {dict(step)}. Serve the '
            'file by `serve_demo` instead'
        )
    return _FILTERS[wanted]

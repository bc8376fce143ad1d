"""Test pipelines as plain data, which files can carry. Only known steps are in them. Imports no torch.

A registry imports and builds every type that it is given, and anybody can write a type into a file.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# The steps, and those of their arguments that change the result.
_STEPS = {
    'LoadImageFromFile': ('to_float32', 'color_type', 'imdecode_backend', 'max_pixels', 'background'),
    'Resize': ('scale', 'keep_ratio', 'backend', 'interpolation'),
    'ResizeEdge': ('scale', 'edge', 'backend', 'interpolation'),
    'CenterCrop': ('crop_size',),
    'PackInputs': (),
}
# Arguments that say where files are, or what is packed beside the image.
_WITHOUT_EFFECT = ('backend_args', 'file_client_args', 'ignore_empty', 'meta_keys', 'algorithm_keys')
_SCOPES = ('', 'mmcv.', 'mmpretrain.', 'mmrepvgg.')
_MAX_SIDE = 1 << 13

Pipeline = tuple[dict[str, Any], ...]


def describe_pipeline(steps: Iterable[Mapping[str, Any]]) -> Pipeline:
    """The steps of a test pipeline as plain data, without labels; empty if one of them is not known here."""
    described = tuple(_describe(step) for step in steps if _name_type(step['type']) not in _names('LoadAnnotations'))
    return described if is_plain_pipeline(described) else ()


def is_plain_pipeline(pipeline: Any) -> bool:
    """Whether something is an empty tuple, or known steps with plain arguments. A file may say anything."""
    return isinstance(pipeline, tuple) and all(isinstance(step, dict) and _is_plain(step) for step in pipeline)


def make_pipeline(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The steps as a registry takes them: mmcv wants tuples where JSON has lists."""
    return [{key: tuple(each) if isinstance(each, list) else each for key, each in step.items()} for step in pipeline]


def _names(step: str) -> tuple[str, ...]:
    return tuple(scope + step for scope in _SCOPES)


def _name_type(step_type: Any) -> str:
    """The type as a config writes it. Configs of mmengine's newer style have the class itself."""
    if isinstance(step_type, str):
        return step_type
    package = getattr(step_type, '__module__', '').partition('.')[0]
    return f'{package}.{getattr(step_type, "__name__", "")}'


def _describe(step: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: value for key, value in step.items() if key not in ('type', *_WITHOUT_EFFECT)}
    lists = {key: list(value) if isinstance(value, list | tuple) else value for key, value in values.items()}
    return dict(type=_name_type(step['type']), **lists)


def _is_plain(step: Mapping[str, Any]) -> bool:
    name = step.get('type')
    arguments = next((allowed for known, allowed in _STEPS.items() if name in _names(known)), None)
    return arguments is not None and all(
        key == 'type' or (key in arguments and _is_plain_value(key, value)) for key, value in step.items()
    )


def _is_plain_value(key: str, value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 3 and all(type(each) is int and 0 <= each <= _MAX_SIDE for each in value)
    if type(value) is int and key != 'max_pixels':
        return 0 < value <= _MAX_SIDE
    return value is None or type(value) in (bool, str, int)

"""The parts of a config and their ``type``."""

from collections.abc import Iterator, Mapping
from typing import Any


def get_type_name(part_type: Any) -> str:
    """The bare name of a config's ``type``.

    ``'mmrepvgg.RepVGG'``, ``'RepVGG'`` and the class itself give ``'RepVGG'``. None, the type of a config without one,
    gives ``''``.
    """
    name = part_type if isinstance(part_type, str) else getattr(part_type, '__name__', '')
    return name.rpartition('.')[-1]


def is_timm_classifier(model: Mapping[str, Any]) -> bool:
    """Whether the config of a model is of mmpretrain's ``TimmClassifier``, which has no backbone and no head."""
    return get_type_name(model.get('type')) == 'TimmClassifier'


def is_classifier(model: Mapping[str, Any]) -> bool:
    """Whether the config of a model is of a classifier."""
    return 'head' in model or is_timm_classifier(model)


def iterate_parts(node: Any) -> Iterator[dict]:
    """Every dict with a ``type`` in a config, outer ones first."""
    if isinstance(node, dict):
        if 'type' in node:
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from iterate_parts(value)


def require_model(cfg: Mapping[str, Any]) -> None:
    """Refuse a config without a model.

    Raises:
        ValueError: If it has none.
    """
    if 'model' not in cfg:
        raise ValueError(
            'the config must have a model; start from one of those that come with mmrepvgg, for example '
            "_base_ = __import__('mmrepvgg').base_configs('repvgg-a0_8xb32')"
        )

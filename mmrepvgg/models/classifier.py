"""The classifier: backbone, neck and head."""

from collections.abc import Mapping
from typing import Any

from mmpretrain.models.classifiers import ImageClassifier as PlainImageClassifier
from mmpretrain.registry import MODELS
from torch import nn

from .backbone import RepVGG
from .config_types import get_type_name


class ImageClassifier(PlainImageClassifier):
    """mmpretrain's ``ImageClassifier`` with a head that fits the backbone.

    A ``LinearClsHead`` on a RepVGG gets its ``in_channels`` from the backbone, and an ``AuxiliaryClsHead`` also its
    ``aux_channels`` and ``deploy``. What the config sets itself is kept.
    """

    def __init__(self, backbone: Any, neck: Any = None, head: Any = None, *args: Any, **kwargs: Any):
        if not isinstance(backbone, nn.Module):
            backbone = MODELS.build(backbone)
        if isinstance(head, Mapping) and isinstance(backbone, RepVGG):
            head = {**_derive_head_args(get_type_name(head.get('type')), backbone), **head}
        super().__init__(backbone, neck, head, *args, **kwargs)


def _derive_head_args(head_type: str, backbone: RepVGG) -> dict[str, Any]:
    *aux_channels, in_channels = backbone.out_channels
    if head_type == 'LinearClsHead':
        return dict(in_channels=in_channels)
    if head_type == 'AuxiliaryClsHead':
        return dict(in_channels=in_channels, aux_channels=aux_channels, deploy=backbone.deploy)
    return {}

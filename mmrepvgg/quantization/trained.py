"""What quantization-aware training leaves in a model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from ..models.blocks import RepVGGBlock
from ..models.fake_quant import get_activation_ranges
from .settings import QuantizationSettings


@dataclass(frozen=True)
class Training:
    """The int8 that a model was trained for.

    Attributes:
        granularity: Of its weights.
        ranges: Of the inputs of its convolutions, see :func:`get_activation_ranges`.
    """

    granularity: str
    ranges: Mapping[str, tuple[float, float]]


def find_training(model: nn.Module) -> Training | None:
    """What ``model``, in train form, was trained for; None without quantization-aware blocks.

    Raises:
        ValueError: If a range was never observed.
    """
    for module in model.modules():
        if isinstance(module, RepVGGBlock) and module.quantization is not None and not module.deploy:
            return Training(module.quantization.granularity, get_activation_ranges(model))
    return None


def resolve_granularity(settings: QuantizationSettings, trained: Training | None) -> QuantizationSettings:
    """``settings`` with the granularity that None stands for.

    Raises:
        ValueError: If the model was trained for another one.
    """
    if settings.granularity is None:
        return replace(settings, granularity=trained.granularity if trained else 'per-channel')
    if trained and settings.granularity != trained.granularity:
        raise ValueError(
            f'granularity must be {trained.granularity}, which the model was trained for, got {settings.granularity}; '
            'leave out --granularity'
        )
    return settings

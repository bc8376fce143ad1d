"""The settings and ranges of quantization-aware training, as a model has them."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..models.fake_quant import get_activation_ranges
from ..models.quantization_aware import QuantizationAwareBlock


@dataclass(frozen=True)
class Training:
    """The int8 for which a model was trained.

    Attributes:
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a scale of its own in the weights.
        ranges: Smallest and largest value of the inputs of convolutions, by the names of the convolutions.
    """

    granularity: str
    ranges: Mapping[str, tuple[float, float]]


def find_training(model: nn.Module) -> Training | None:
    """The int8 for which a model in train form was trained; None if it has no quantization-aware blocks.

    Raises:
        ValueError: If a range was never observed.
    """
    for module in model.modules():
        if isinstance(module, QuantizationAwareBlock) and not module.deploy:
            return Training(module.quantization.granularity, get_activation_ranges(model))
    return None

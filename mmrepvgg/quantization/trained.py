"""What quantization-aware training leaves in a model."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ..models.fake_quant import get_activation_ranges
from ..models.quantization_aware import QuantizationAwareBlock


@dataclass(frozen=True)
class Training:
    """The int8 that a model was trained for.

    Attributes:
        granularity: Of its weights.
        ranges: Smallest and largest value of the inputs of its convolutions, by their names.
    """

    granularity: str
    ranges: Mapping[str, tuple[float, float]]


def find_training(model: nn.Module) -> Training | None:
    """What ``model``, in train form, was trained for; None without quantization-aware blocks.

    Raises:
        ValueError: If a range was never observed.
    """
    for module in model.modules():
        if isinstance(module, QuantizationAwareBlock) and not module.deploy:
            return Training(module.quantization.granularity, get_activation_ranges(model))
    return None

"""Ranges that a user or a training gives to a quantizer, for the tensors of a file."""

import math
from collections.abc import Mapping

from .quantizer import Ranges


def assign_ranges(ranges: Ranges, inputs: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Check the ranges of the inputs of convolutions, and assign them to tensors.

    Args:
        ranges: Ranges by the names of convolutions.
        inputs: Name of the input of each convolution, by the name of the convolution.

    Returns:
        dict[str, tuple[float, float]]: Ranges by the names of tensors.

    Raises:
        ValueError: If a convolution does not exist, or a range can't be used.
    """
    if unknown := sorted(set(ranges) - set(inputs)):
        raise ValueError(
            f'`activation_ranges` must name convolutions of the deploy form, {", ".join(inputs)}, got {unknown[0]!r}'
        )
    tensors: dict[str, tuple[float, float]] = {}
    for layer, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f'the range of {layer} must be finite and ascending, got {(low, high)}')
        common = tensors.setdefault(inputs[layer], (low, high))
        if common != (low, high):
            raise ValueError(
                f'{layer} must have the same range as the other layers of its input, {common}, got {(low, high)}'
            )
    return tensors

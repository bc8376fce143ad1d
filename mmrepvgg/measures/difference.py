"""The difference between the outputs of two models."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Difference:
    """The largest difference between two models' outputs over all inputs.

    Attributes:
        largest: Largest absolute difference. NaN if an output is not finite.
        largest_output: Largest absolute value of the expected outputs.
        num_inputs: Number of inputs.
    """

    largest: float = 0.0
    largest_output: float = 0.0
    num_inputs: int = 0

    def add(self, expected: Tensor, actual: Tensor) -> None:
        """Take in a batch of outputs ``(N, ...)``. Both have the same shape."""
        self.num_inputs += len(expected)
        # Python's max(1.0, nan) is 1.0
        if not (expected.isfinite().all() and actual.isfinite().all()):
            self.largest = float('nan')
        elif self.largest == self.largest:
            self.largest = max(self.largest, (expected - actual).abs().max().item())
            self.largest_output = max(self.largest_output, expected.abs().max().item())

    @property
    def relative(self) -> float:
        """Largest difference divided by the largest output."""
        return self.largest / self.largest_output if self.largest_output else self.largest

    def exceeds(self, tolerance: float) -> bool:
        """Whether the relative difference is above ``tolerance``, or NaN."""
        return not self.relative <= tolerance


def join_outputs(outputs: Any) -> Tensor:
    """Outputs ``(N, ...)`` of a model, also nested in lists and dicts, as one ``(N, numbers)``."""
    if isinstance(outputs, Tensor):
        return outputs.flatten(1)
    return torch.cat(
        [join_outputs(output) for output in (outputs.values() if isinstance(outputs, dict) else outputs)], 1
    )

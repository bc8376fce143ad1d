"""How far two outputs are apart."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Difference:
    """The largest difference between two models' outputs over all inputs.

    Attributes:
        largest: Largest absolute difference; NaN if an output is not finite.
        largest_output: Largest absolute output of the expected ones.
        num_inputs: On how many inputs that was measured.
    """

    largest: float = 0.0
    largest_output: float = 0.0
    num_inputs: int = 0

    def add(self, expected: Tensor, actual: Tensor) -> None:
        """Take in a batch of outputs ``(N, ...)``, both of one shape."""
        self.num_inputs += len(expected)
        # max() of Python would drop a NaN that stands behind a number
        if not (expected.isfinite().all() and actual.isfinite().all()):
            self.largest = float('nan')
        elif self.largest == self.largest:
            self.largest = max(self.largest, (expected - actual).abs().max().item())
            self.largest_output = max(self.largest_output, expected.abs().max().item())

    @property
    def relative(self) -> float:
        """The largest difference as a part of the largest output."""
        return self.largest / self.largest_output if self.largest_output else self.largest

    def exceeds(self, tolerance: float) -> bool:
        """Whether the relative difference is above ``tolerance``; NaN always is."""
        return not self.relative <= tolerance

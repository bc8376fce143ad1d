"""A case of the benchmark that is ready to run."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Runner:
    """A case that is ready to run.

    Attributes:
        run: Function that computes one batch in memory, and returns when the work is done.
        logits: Function that gives the logits ``(N, num_classes)`` of this batch on the CPU. Call it before ``run``.
        file_size: Size in bytes of the file that is run, with all that belongs to it. None if there is no file.
        measure_memory: Function that calls ``run`` and gives the bytes of all tensors at the peak. None if that is not
            measured.
    """

    run: Callable[[], object]
    logits: Callable[[], Tensor]
    file_size: int | None = None
    measure_memory: Callable[[], int] | None = None

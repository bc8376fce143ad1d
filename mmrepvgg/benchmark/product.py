"""What is timed beside the rows to find the limit of the machine."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    """Large matrix products.

    Attributes:
        device: ``'cpu'`` or ``'cuda'``.
        precision: One of ``PRECISIONS``.
        title: What is multiplied, and by what.
        macs: Number of multiply-adds.
        run: Function that computes the products once.
    """

    device: str
    precision: str
    title: str
    macs: int
    run: Callable[[], object]

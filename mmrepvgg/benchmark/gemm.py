"""The limit of the machine: the speed at which it multiplies two large matrices."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtimes.network import DTYPES
from .runners import synchronise

# Largest number of rows of a matrix, and largest duration of a product in seconds.
_MAX_SIZE = 8192
_MAX_SECONDS = 0.25


@dataclass(frozen=True)
class Gemm:
    """One way to multiply two square matrices.

    Attributes:
        device: ``'cpu'`` or ``'cuda'``.
        precision: Key of ``DTYPES``.
        method: ``'mm'`` for the BLAS library, or ``'conv1x1'`` for the convolution library, which is another one on
            CPUs.
        size: Number of rows and columns of each matrix.
        run: Function that computes the product once.
    """

    device: str
    precision: str
    method: str
    size: int
    run: Callable[[], object]

    @property
    def flops(self) -> int:
        return 2 * self.size**3


def prepare_gemms(device: str, precision: str, max_size: int = _MAX_SIZE) -> list[Gemm]:
    """Prepare every method, with the largest matrices that it multiplies within a quarter of a second.

    The fastest method is the limit. Each precision can have another fastest method.
    """
    return [_find_size(device, precision, method, max_size) for method in _METHODS]


def _find_size(device: str, precision: str, method: str, max_size: int) -> Gemm:
    size = 256
    while True:
        gemm = Gemm(device, precision, method, size, _METHODS[method](device, precision, size))
        gemm.run()
        start = time.perf_counter()
        gemm.run()
        # twice the size takes about eight times as long
        if size >= max_size or 8 * (time.perf_counter() - start) > _MAX_SECONDS:
            return gemm
        size *= 2


def _prepare_mm(device: str, precision: str, size: int) -> Callable[[], Tensor]:
    a, b = torch.randn(2, size, size).to(device, DTYPES[precision])

    def run() -> Tensor:
        product = a @ b
        synchronise(device)
        return product

    return run


def _prepare_conv1x1(device: str, precision: str, size: int) -> Callable[[], Tensor]:
    # (1, size, 16, size / 16) by (size, size, 1, 1): size pixels of size channels each
    x = torch.randn(1, size, 16, size // 16).to(device, DTYPES[precision]).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(size, size, 1, 1).to(device, DTYPES[precision])

    def run() -> Tensor:
        with torch.inference_mode():
            product = F.conv2d(x, weight)
        synchronise(device)
        return product

    return run


_METHODS: dict[str, Callable[[str, str, int], Callable[[], Tensor]]] = {'mm': _prepare_mm, 'conv1x1': _prepare_conv1x1}

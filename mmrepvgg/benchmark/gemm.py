"""The limit of the machine in floating point: the speed at which PyTorch multiplies two large matrices."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtimes.network import DTYPES
from .product import Product
from .runners import synchronise

# Largest number of rows of a matrix, and largest duration of a product in seconds.
_MAX_SIZE = 8192
_MAX_SECONDS = 0.25


def prepare_gemms(device: str, precision: str, max_size: int = _MAX_SIZE) -> list[Product]:
    """Prepare every method, with the largest matrices that it multiplies within a quarter of a second.

    The methods are ``'mm'``, by the BLAS library, and ``'conv1x1'``, by the convolution library, which is another one
    on CPUs. The fastest method is the limit. Each precision can have another fastest method.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
        precision: Key of ``DTYPES``.
        max_size: Largest number of rows of a matrix.
    """
    return [_find_size(device, precision, method, max_size) for method in _METHODS]


def _find_size(device: str, precision: str, method: str, max_size: int) -> Product:
    size = 256
    while True:
        run = _METHODS[method](device, precision, size)
        run()
        start = time.perf_counter()
        run()
        # twice the size takes about eight times as long
        if size >= max_size or 8 * (time.perf_counter() - start) > _MAX_SECONDS:
            return Product(device, precision, f'{method} of {size} x {size} matrices in PyTorch', size**3, run)
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

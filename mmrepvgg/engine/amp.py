"""Mixed precision on GPUs, and on CPUs, which mmengine's ``AmpOptimWrapper`` refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import optim
from mmengine.optim import OptimWrapper
from torch import nn


class CPUAmpOptimWrapper(OptimWrapper):
    """Run the forward pass in bfloat16 on the CPU (autocast). bfloat16 has float32's range and needs no loss scaling.

    It is faster where the CPU multiplies bfloat16 in hardware (AMX, AVX512-BF16).
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def AmpOptimWrapper(**kwargs: Any) -> OptimWrapper:  # noqa: N802 (a config names it like a class)
    """Build the optimizer wrapper for mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.

    Args:
        **kwargs: Arguments of mmengine's ``OptimWrapper``; on a GPU also those of its ``AmpOptimWrapper``.
    """
    if torch.cuda.is_available():
        return optim.AmpOptimWrapper(**{'loss_scale': 'dynamic', **kwargs})
    return CPUAmpOptimWrapper(**kwargs)

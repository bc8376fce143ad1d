"""Mixed precision, also on CPUs, which mmengine's ``AmpOptimWrapper`` refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn


class CPUAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast on the CPU. bfloat16 has float32's range: no loss scaling.

    Worth it where the CPU multiplies bfloat16 in hardware (AMX, AVX512-BF16).
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def build_amp_optim_wrapper(**kwargs: Any) -> OptimWrapper:
    """The optimizer wrapper for mixed precision on this machine, ``mmrepvgg.AmpOptimWrapper`` in a config.

    float16 with dynamic loss scaling on a GPU, bfloat16 on a CPU.

    Args:
        **kwargs: Arguments of mmengine's ``OptimWrapper``.
    """
    return (
        AmpOptimWrapper(loss_scale='dynamic', **kwargs) if torch.cuda.is_available() else CPUAmpOptimWrapper(**kwargs)
    )

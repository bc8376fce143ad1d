"""Branches that are computed again in the backward pass, to save memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def compute_twice(compute: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """Return ``compute(x)``, and compute it again in the backward pass, so that only ``x`` is stored for that.

    Only the first computation updates the running statistics of the batch norms in ``module``.
    """
    if not (module.training and torch.is_grad_enabled()):
        return compute(x)
    return checkpoint(
        compute, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _hold_norm_statistics(module))
    )


@contextmanager
def _hold_norm_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms in train mode normalise by the batch and keep their running statistics as they are.

    The momentum becomes 0. Turning the tracking off would not do: the recomputation must save the same tensors for the
    backward pass as the first computation, and the running statistics are among them.
    """
    norms: list[Any] = [
        m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    held = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in held:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)

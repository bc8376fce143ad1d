"""Whether numbers are finite."""

import torch
from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of a floating-point tensor is NaN or infinite.

    ``tensor.isfinite()`` makes tensors of this size; this makes none.
    """
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())

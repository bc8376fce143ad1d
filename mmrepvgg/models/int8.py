"""The grids of int8 that training and analysis simulate. They are those of ONNX Runtime's static quantization."""

import torch
from torch import Tensor

MAX_INT8 = 127  # the grid of kernels is symmetric and begins at -127
MAX_UINT8 = 255


def fake_quantize_kernel(kernel: Tensor, per_channel: bool) -> Tensor:
    """Round a kernel to int8: to 255 values from -absmax to absmax, its largest absolute value.

    The gradient goes straight through the rounding.

    Args:
        kernel: Kernel ``(C_out, ...)``.
        per_channel: Use one absmax for each output channel instead of one for the whole kernel.

    Returns:
        Tensor: The rounded kernel, with the same shape and dtype. A channel of zeros stays zero.
    """
    values = kernel.detach()
    largest = values.abs().flatten(1).amax(1) if per_channel else values.abs().amax()
    largest = largest.double()
    scale = torch.where(largest > 0, largest / MAX_INT8, torch.ones_like(largest)).float()
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    if per_channel:
        return torch.fake_quantize_per_channel_affine(kernel, scale, zero_point, 0, -MAX_INT8, MAX_INT8)
    return torch.fake_quantize_per_tensor_affine(kernel, scale, zero_point, -MAX_INT8, MAX_INT8)


def fake_quantize_activations(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round ``x`` to the 256 values of uint8 between ``low`` and ``high``, a range that is widened to include 0.

    The gradient goes straight through the rounding within the range, and is 0 outside.

    Args:
        x: Tensor of any shape, float32 or float64.
        low: Minimum of the range, a scalar.
        high: Maximum of the range, a scalar.
    """
    scale, zero_point = find_uint8_grid(low, high)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, MAX_UINT8)


@torch.no_grad()
def find_uint8_grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) of uint8 from ``low`` to ``high``, a range that is widened to include 0.

    All are scalars. The scale is ``(high - low) / 255``, the zero point ``round(-low / scale)``. So 0, with which a
    convolution pads, is on the grid. A range of zero width has the scale 1 and the zero point 0.
    """
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    scale = (high - low) / MAX_UINT8
    has_width = scale >= torch.finfo(torch.float32).tiny
    scale = torch.where(has_width, scale, torch.ones_like(scale))
    zero_point = torch.where(has_width, (-low / scale).round(), torch.zeros_like(scale))
    return scale.float(), zero_point.int()

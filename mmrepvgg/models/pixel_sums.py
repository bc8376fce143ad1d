"""Sums over pixels: the mean and the covariance of an input's channels, and a 1x1 convolution of the centred input.

Values are centred before they are multiplied, and sums are accumulated in float32, in float64 for float64 inputs. The
functions store their input and nothing of its size besides, and can be differentiated once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ProcessGroup = torch.distributed.ProcessGroup


def find_moments(x: Tensor, groups: int = 1, processes: ProcessGroup | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The mean and the covariance of the channels over all pixels, and the number of pixels.

    Args:
        x: ``(N, C, H, W)``.
        groups: Number of groups of channels. The covariance is that within each group.
        processes: The processes whose pixels count; None for this process alone.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Mean ``(G, C / G)``, covariance ``(G, C / G, C / G)``, biased, and the number of
        pixels, a scalar.
    """
    return _Moments.apply(x, groups, processes)


def convolve_centred(x: Tensor, mean: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution of ``x - mean``, in the dtype of ``x``.

    Args:
        x: ``(N, C_in, H, W)``.
        mean: ``(G, C_in / G)``.
        kernel: ``(G, C_out / G, C_in / G)``, in the dtype in which sums are accumulated, as mean and bias.
        bias: ``(C_out,)``.

    Returns:
        Tensor: ``(N, C_out, H, W)``.
    """
    return _CentredConvolution.apply(x, mean, kernel, bias)


def get_sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums of values of ``dtype`` are accumulated."""
    return torch.promote_types(dtype, torch.float32)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, processes: ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
        with _in_own_dtypes(x):
            total = _sum(x)
            count = total.new_tensor([x.numel() // x.shape[1]])
            _reduce(processes, total, count)
            mean = (total / count).view(groups, -1)
            centred = _list_pixels(x, groups, mean)
            covariance = _multiply(centred, centred)
            _reduce(processes, covariance)
            covariance /= count
        ctx.save_for_backward(x, mean, count)
        ctx.processes = processes
        ctx.mark_non_differentiable(count)
        return mean, covariance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mean: Tensor, d_covariance: Tensor, _: Any) -> tuple[Tensor, None, None]:
        x, mean, count = ctx.saved_tensors
        with _in_own_dtypes(x):
            d_mean, d_covariance = d_mean.clone(), d_covariance + d_covariance.mT
            _reduce(ctx.processes, d_mean, d_covariance)
            return _convolve(x, mean, d_covariance / count, (d_mean / count).flatten()), None, None


class _CentredConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, mean, kernel)
        with _in_own_dtypes(x):
            return _convolve(x, mean, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, kernel = ctx.saved_tensors
        groups = len(kernel)
        with _in_own_dtypes(x):
            g_sum = _sum(g)
            d_kernel = _multiply(_list_pixels(g, groups), _list_pixels(x, groups, mean))
            d_mean = -(g_sum.view(groups, 1, -1) @ kernel).view_as(mean)
            dx = F.conv2d(g, _join(kernel.mT, x.dtype), groups=groups) if ctx.needs_input_grad[0] else None
        return dx, d_mean, d_kernel, g_sum


def _convolve(x: Tensor, mean: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    used = _join(kernel, x.dtype)
    # In half precision the kernel is rounded. What the rounded one makes of the mean is taken off: no offset remains.
    shift = bias - (used.to(mean.dtype).view_as(kernel) @ mean.unsqueeze(-1)).flatten()
    return F.conv2d(x, used, shift.to(x.dtype), groups=len(kernel))


def _in_own_dtypes(x: Tensor) -> torch.autocast:
    # autocast would multiply in half precision and round the sums; a backward pass may run within it, too
    return torch.autocast(x.device.type, enabled=False)


def _sum(x: Tensor) -> Tensor:
    """The sum over the pixels, ``(C,)``."""
    return x.sum((0, 2, 3), dtype=get_sum_dtype(x.dtype))


def _list_pixels(x: Tensor, groups: int, mean: Tensor | None = None) -> Tensor:
    """``(N, C, H, W)`` -> ``(G, N * H * W, C / G)``, less ``mean``, in a dtype in which products are not rounded."""
    pixels = x.to(get_sum_dtype(x.dtype)) if mean is None else x - mean.view(-1, 1, 1)  # mean has the dtype of sums
    if x.is_cuda:  # a GPU multiplies half precision many times faster, and accumulates it in float32
        pixels = pixels.to(x.dtype)
    return pixels.permute(0, 2, 3, 1).reshape(-1, groups, x.shape[1] // groups).transpose(0, 1)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """``(G, pixels, A)`` and ``(G, pixels, B)`` -> ``(G, A, B)``, the sum of the products over the pixels."""
    dtype = get_sum_dtype(a.dtype)
    return torch.bmm(a.mT, b) if a.dtype == dtype else torch.bmm(a.mT, b, out_dtype=dtype)


def _join(kernel: Tensor, dtype: torch.dtype) -> Tensor:
    """``(G, A, B)`` -> ``(G * A, B, 1, 1)``, rounded."""
    return kernel.to(dtype).flatten(0, 1)[:, :, None, None]


def _reduce(processes: ProcessGroup | None, *sums: Tensor) -> None:
    """Add the sums of the other processes, in place."""
    if processes is not None:
        for values in sums:
            torch.distributed.all_reduce(values, group=processes)

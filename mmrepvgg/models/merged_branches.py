"""A block whose 1x1 and identity branch are computed as one 1x1 convolution while training. Derived for this project.

With ``m`` and ``S`` the mean and the covariance of the input's channels, the output of a 1x1 convolution ``K`` has the
mean ``K m`` and the variance ``diag(K S K^T)``. So the statistics of both branches follow from those of the input. With
``s = gain / sqrt(variance + eps)``, the sum of both branches is ``M (x - m) + b``:

    M = diag(s_1x1) K + diag(s_identity)
    b = bias_1x1 + bias_identity

The backward pass needs the input alone, which the 3x3 convolution stores in any case.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .blocks import RepVGGBlock
from .fusion import get_conv_weight, get_norm_scale_shift, pad_1x1_to_3x3
from .geometry import require_agreement
from .pixel_sums import ProcessGroup, convolve_centred, find_moments, get_sum_dtype
from .recompute import compute_twice


class MergedBranchesBlock(RepVGGBlock):
    """:class:`RepVGGBlock` with the same function, gradients, statistics and keys, which stores fewer activations.

    A training step stores the input and the output of the 3x3 convolution; :class:`RepVGGBlock` also stores the output
    of the 1x1 convolution. Where all batch norms of a block in train mode are frozen (in eval mode), the block is one
    convolution with the equivalent kernel, and stores its input alone. Where only some are, and in eval mode, it is
    computed as a :class:`RepVGGBlock`. Gradients can't be differentiated again.

    Raises:
        ValueError: If the norm is no batch norm.
    """

    def _make_branches(self) -> None:
        super()._make_branches()
        for norm in self._list_norms():
            if type(norm).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward):
                raise ValueError(
                    "branches='merged' computes the statistics of batch norms, so norm_cfg must be dict(type='BN') or "
                    f"dict(type='SyncBN'), got a {type(norm).__name__}; take branches='separate'"
                )

    def _compute_branches(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._sum_branches(x)
        else:
            return compute_twice(self._sum_in_mode, x, self) if self.with_cp else self._sum_in_mode(x)

    @torch.jit.unused
    def _sum_in_mode(self, x: Tensor) -> Tensor:
        use_batch = {norm.training or norm.running_mean is None for norm in self._list_norms()}
        if not self.training or len(use_batch) > 1:
            return self._sum_branches(x)
        require_agreement(self.branch_3x3.conv, self.branch_1x1.conv, self.has_identity)
        if use_batch == {False}:
            return self.branch_3x3.conv._conv_forward(x, *self._merge_frozen())
        y = self.branch_3x3(x)
        return self._convolve_merged(self._take_centres(x).to(y.dtype)).add_(y)

    def _convolve_merged(self, x: Tensor) -> Tensor:
        """The sum of the 1x1 and the identity branch. Updates the statistics of their norms."""
        conv, norm_1x1, norm_identity = self.branch_1x1.conv, self.branch_1x1.norm, self.branch_norm
        rows, columns = conv.stride
        if rows > 1 or columns > 1:
            x = F.avg_pool2d(x, 1, (rows, columns))
        mean, covariance, count = find_moments(x, self.groups, _find_processes(norm_1x1))
        kernel = get_conv_weight(conv, mean.dtype).view(self.groups, -1, mean.shape[1])  # (G, C_out / G, C_in / G)
        variance_1x1 = ((kernel @ covariance) * kernel).sum(-1)  # (G, C_out / G)
        _track(norm_1x1, (kernel @ mean.unsqueeze(-1)), variance_1x1, count)
        scale, bias = _get_scale_bias(norm_1x1, variance_1x1)
        kernel = scale.unsqueeze(-1) * kernel
        if norm_identity is not None:
            variance = covariance.diagonal(dim1=1, dim2=2)
            _track(norm_identity, mean, variance, count)
            scale, bias_identity = _get_scale_bias(norm_identity, variance)
            kernel, bias = kernel + torch.diag_embed(scale), bias + bias_identity
        return convolve_centred(x, mean, kernel, bias)

    def _merge_frozen(self) -> tuple[Tensor, Tensor]:
        """The equivalent kernel and bias, in the dtype of sums: in float64 their backward pass would store much."""
        conv, norm_identity = self.branch_3x3.conv, self.branch_norm
        dtype = get_sum_dtype(conv.weight.dtype)
        (scale, bias), (scale_1x1, bias_1x1) = (_get_frozen(b.norm, dtype) for b in (self.branch_3x3, self.branch_1x1))
        kernel = get_conv_weight(conv, dtype) * scale.view(-1, 1, 1, 1)
        kernel_1x1 = get_conv_weight(self.branch_1x1.conv, dtype) * scale_1x1.view(-1, 1, 1, 1)
        bias = bias + bias_1x1
        if norm_identity is not None:
            scale, bias_identity = _get_frozen(norm_identity, dtype)
            kernel_1x1 = kernel_1x1 + torch.diag_embed(scale.view(self.groups, -1)).view_as(kernel_1x1)
            bias = bias + bias_identity
        kernel = kernel + pad_1x1_to_3x3(kernel_1x1)
        return kernel.to(conv.weight.dtype), bias.to(conv.weight.dtype)

    def _list_norms(self) -> list[Any]:
        norms = [self.branch_3x3.norm, self.branch_1x1.norm, self.branch_norm]
        return [norm for norm in norms if norm is not None]


def _find_processes(norm: nn.Module) -> ProcessGroup | None:
    """The processes over whose pixels ``norm`` takes its statistics; None if it takes those of its own."""
    if not isinstance(norm, nn.SyncBatchNorm) or not torch.distributed.is_initialized():
        return None
    processes = norm.process_group or torch.distributed.group.WORLD
    return processes if torch.distributed.get_world_size(processes) > 1 else None


def _get_scale_bias(norm: Any, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Scale ``(G, C / G)`` and bias ``(C,)`` of a norm by the statistics of the batch."""
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.view_as(scale)
    return scale, variance.new_zeros(variance.numel()) if norm.bias is None else norm.bias.to(variance.dtype)


def _get_frozen(norm: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm by its running statistics, each ``(C,)``."""
    scale, shift = get_norm_scale_shift(norm)
    return scale.to(dtype), shift.to(dtype)


@torch.no_grad()
def _track(norm: Any, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Update the running statistics as the norm itself would do."""
    if norm.running_mean is None or not norm.training:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked.to(mean.dtype) if norm.momentum is None else norm.momentum
    unbiased = variance * (count / (count - 1))
    for running, value in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.lerp_(value.flatten().to(running.dtype), momentum)

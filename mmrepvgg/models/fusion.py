"""Kernel algebra: the pure functions behind the switch (paper, Section 3.3 and Figure 4).

Everything here computes in float64 and is differentiable; who calls it rounds the result once.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class FusionError(TypeError):
    """A layer that can't be folded into a convolution."""


def get_conv_weight(conv: Any) -> Tensor:
    """The kernel with which ``conv`` convolves, as float64.

    Plain convolutions use their parameter; weight-standardising ones (``ConvWS``, ``ConvAWS``) use a
    function of it, and fusing the parameter instead is silently wrong.

    Returns:
        Tensor: ``(C_out, C_in // groups, k, k)``.

    Raises:
        FusionError: If ``conv`` is of a type whose kernel is unknown here (a deformable or padding-adaptive
            convolution, for example, is no fixed linear filter).
    """
    if type(conv) is ConvWS2d:
        weight = conv.weight.double()
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return centred / (weight.std((1, 2, 3), keepdim=True) + conv.eps)
    if type(conv) is ConvAWS2d:
        weight = conv.weight.double()
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        standardised = centred / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return conv.weight_gamma.double() * standardised + conv.weight_beta.double()
    if isinstance(conv, nn.Conv2d) and _computes_like(conv, nn.Conv2d):
        return conv.weight.double()
    raise FusionError(
        f'cannot fuse {type(conv).__name__}: the kernel that it convolves with is not known here; allowed are Conv2d, '
        'ConvWS and ConvAWS (conv_cfg=dict(type=...)), and subclasses of Conv2d that compute the same'
    )


def get_norm_scale_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Write a batch norm in eval mode as ``scale * x + shift``, both float64 and ``(C,)``.

    Takes ``BatchNorm2d``, ``SyncBatchNorm`` and other subclasses; ``affine=False`` counts as gain 1, bias 0.

    Raises:
        FusionError: If ``norm`` is no batch norm, or keeps no running statistics.
    """
    if not isinstance(norm, _BatchNorm):
        raise FusionError(
            f'cannot fuse {type(norm).__name__}: its statistics depend on the input, so it is no fixed scale; '
            "use a batch norm (norm_cfg=dict(type='BN') or 'SyncBN')"
        )
    if norm.running_mean is None or norm.running_var is None:
        raise FusionError(
            f'cannot fuse a {type(norm).__name__} without running statistics (track_running_stats=False): it '
            'normalises by each batch also in eval mode; train with track_running_stats=True'
        )
    base = nn.SyncBatchNorm if isinstance(norm, nn.SyncBatchNorm) else _BatchNorm
    if not _computes_like(norm, base):
        raise FusionError(
            f'cannot fuse {type(norm).__name__}: its forward does more than a batch norm in eval mode, so that '
            'folding its statistics would change the function; use a plain batch norm'
        )
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


@torch.no_grad()
def _computes_like(module: Any, base: type[nn.Module]) -> bool:
    """Whether ``module``, of a subclass of ``base``, is the same function as ``base`` would be in eval mode.

    Subclasses of libraries and users override ``forward`` for harmless reasons (empty inputs, statistics across
    GPUs) and for others (an activation, a padding of their own), so the function itself is compared.
    """
    if type(module).forward is base.forward:
        return True
    module = copy.deepcopy(module).double().eval()
    channels = module.in_channels if base is nn.Conv2d else module.num_features
    x = torch.linspace(-10, 10, 2 * channels * 7 * 7, dtype=torch.float64).reshape(2, channels, 7, 7)
    x = x.to(next(iter(module.state_dict().values())).device)
    actual, expected = module(x), base.forward(module, x)
    return actual.shape == expected.shape and torch.allclose(actual, expected)


def fuse_conv_norm(branch: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Fold a convolution and the norm behind it: kernel ``(C_out, C_in // groups, k, k)`` and bias ``(C_out,)``.

    Not ``torch.nn.utils.fuse_conv_bn_weights``: that returns new Parameters, which cuts the gradient.
    """
    conv, norm = branch
    scale, shift = get_norm_scale_shift(norm)
    kernel = get_conv_weight(conv) * scale.reshape(-1, 1, 1, 1)
    if isinstance(conv.bias, Tensor):
        shift = shift + conv.bias.double() * scale
    return kernel, shift


def fuse_identity_norm(norm: nn.Module, groups: int) -> tuple[Tensor, Tensor]:
    """Write a bare ``norm`` as a 3x3 convolution: kernel ``(C, C // groups, 3, 3)`` and bias ``(C,)``."""
    scale, shift = get_norm_scale_shift(norm)
    channels = scale.numel()
    identity = make_identity_kernel(scale.new_empty(channels, channels // groups, 3, 3), groups)
    return identity * scale.reshape(-1, 1, 1, 1), shift


def make_identity_kernel(like: Tensor, groups: int) -> Tensor:
    """The kernel that changes nothing, of the shape ``(C, C // groups, 3, 3)``, dtype and device of ``like``."""
    return nn.init.dirac_(torch.zeros_like(like, requires_grad=False), groups)


def pad_1x1_to_3x3(kernel: Tensor) -> Tensor:
    """``(C_out, C_in, 1, 1)`` -> ``(C_out, C_in, 3, 3)``, the kernel at the centre tap."""
    return F.pad(kernel, [1, 1, 1, 1])


def check_half_range(kernel: Tensor, bias: Tensor) -> None:
    """Refuse an equivalent kernel or bias that was rounded to infinity.

    Raises:
        OverflowError: If one is float16 and too large for it.
    """
    if kernel.dtype == torch.float16 and not (kernel.isfinite().all() and bias.isfinite().all()):
        raise OverflowError(
            'the equivalent kernel or bias exceeds the range of float16 (65504); '
            'convert in float32 (model.float()) and keep float32 or use bfloat16'
        )

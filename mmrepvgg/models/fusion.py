"""Kernel algebra: the pure functions behind the switch (paper, Section 3.3 and Figure 4).

All functions compute in float64 by default and are differentiable. The caller rounds the result once.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv_ws import ConvAWS2d, ConvWS2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class FusionError(TypeError):
    """A layer that can't be folded into a convolution."""


def get_conv_weight(conv: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """The kernel with which ``conv`` convolves, computed in ``dtype``.

    A plain convolution uses its parameter. A weight-standardising one (``ConvWS``, ``ConvAWS``) uses a function of it:
    fusing the parameter would be wrong.

    Returns:
        Tensor: ``(C_out, C_in // groups, k, k)``.

    Raises:
        FusionError: If the kernel of this type is not known. A deformable convolution, for example, is no fixed linear
            filter.
    """
    if type(conv) is ConvWS2d:
        weight = conv.weight.to(dtype)
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return centred / (weight.std((1, 2, 3), keepdim=True) + conv.eps)
    if type(conv) is ConvAWS2d:
        weight = conv.weight.to(dtype)
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        standardised = centred / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return conv.weight_gamma.to(dtype) * standardised + conv.weight_beta.to(dtype)
    if isinstance(conv, nn.Conv2d) and _computes_like(conv, nn.Conv2d):
        return conv.weight.to(dtype)
    raise FusionError(
        f'cannot fuse {type(conv).__name__}: its kernel is not known; allowed are Conv2d, ConvWS and ConvAWS '
        '(conv_cfg=dict(type=...)), and subclasses of Conv2d that compute the same function'
    )


def get_norm_scale_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Write a batch norm in eval mode as ``scale * x + shift``, both float64 and ``(C,)``.

    ``BatchNorm2d``, ``SyncBatchNorm`` and other subclasses are allowed. ``affine=False`` counts as gain 1 and bias 0.

    Raises:
        FusionError: If ``norm`` is no batch norm, keeps no running statistics, or computes another function.
    """
    if not isinstance(norm, _BatchNorm):
        raise FusionError(
            f'cannot fuse {type(norm).__name__}: its statistics depend on the input, so it is no fixed scale; '
            "use a batch norm (norm_cfg=dict(type='BN') or 'SyncBN')"
        )
    if norm.running_mean is None or norm.running_var is None:
        raise FusionError(
            f'cannot fuse a {type(norm).__name__} without running statistics (track_running_stats=False): it '
            'normalises by each batch in eval mode, too; train with track_running_stats=True'
        )
    base = nn.SyncBatchNorm if isinstance(norm, nn.SyncBatchNorm) else _BatchNorm
    if not _computes_like(norm, base):
        raise FusionError(
            f'cannot fuse {type(norm).__name__}: its forward does more than a batch norm in eval mode, and folding '
            'its statistics would change the function; use a plain batch norm'
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
    """Whether ``module``, whose class is a subclass of ``base``, computes the same function as ``base`` in eval mode.

    Some subclasses override ``forward`` for harmless reasons (empty inputs, statistics across GPUs), others add an
    activation or a padding. So the outputs are compared.
    """
    own = type(module)
    if own.forward is base.forward and getattr(own, '_conv_forward', None) is getattr(base, '_conv_forward', None):
        return True
    module = copy_for_probing(module)
    plain = copy.deepcopy(module)  # a forward of its own may change the weights
    for x in _make_probes(module, base):
        if base is nn.Conv2d:
            expected = nn.Conv2d._conv_forward(plain, x, plain.weight, plain.bias)
        else:
            expected = base.forward(plain, x)
        actual = module(x)
        if actual.shape != expected.shape or not torch.allclose(actual, expected):
            return False
    return True


def copy_for_probing(module: nn.Module) -> Any:
    """A copy in float64 and eval mode with numbers from 0.5 to 1.5: what it computes depends on its code alone.

    With weights of zeros, as in a model that waits for its checkpoint, many a layer would pass for a plain one.
    """
    module = copy.deepcopy(module).cpu().double().eval()
    generator = torch.Generator().manual_seed(0)
    for number in (*module.parameters(), *module.buffers()):
        if number.is_floating_point():
            number.copy_(torch.rand(number.shape, generator=generator, dtype=number.dtype) + 0.5)
    return module


def _make_probes(module: Any, base: type[nn.Module]) -> Iterator[Tensor]:
    """Inputs for a comparison. A convolution with a stride gets one for each way in which its steps may end.

    A padding on one side shows in some heights and widths only: a 3x3 with stride 2 reaches it at 8, and not at 7.
    """
    if base is nn.Conv2d:
        reach = max(d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True))
        smallest = max(7, reach)
        channels, sizes = module.in_channels, range(smallest, smallest + max(module.stride))
    else:
        channels, sizes = module.num_features, range(2, 3)
    for size in sizes:
        x = torch.linspace(-10, 10, 2 * channels * size * size, dtype=torch.float64)
        yield x.reshape(2, channels, size, size)


def fuse_conv_norm(branch: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Fold a convolution and the norm behind it: kernel ``(C_out, C_in // groups, k, k)`` and bias ``(C_out,)``.

    ``torch.nn.utils.fuse_conv_bn_weights`` returns new Parameters, through which no gradient goes.
    """
    conv, norm = branch
    scale, shift = get_norm_scale_shift(norm)
    kernel = get_conv_weight(conv) * scale.reshape(-1, 1, 1, 1)
    if isinstance(conv.bias, Tensor):
        shift = shift + conv.bias.double() * scale
    return kernel, shift


def fuse_identity_norm(norm: nn.Module, groups: int) -> tuple[Tensor, Tensor]:
    """Write a bare ``norm`` as a 1x1 convolution: kernel ``(C, C // groups, 1, 1)`` and bias ``(C,)``."""
    scale, shift = get_norm_scale_shift(norm)
    channels = scale.numel()
    identity = make_identity_kernel(scale.new_empty(channels, channels // groups, 1, 1), groups)
    return identity * scale.reshape(-1, 1, 1, 1), shift


def make_identity_kernel(like: Tensor, groups: int) -> Tensor:
    """The kernel of the identity function, with the shape ``(C, C // groups, k, k)``, dtype and device of ``like``."""
    return nn.init.dirac_(torch.zeros_like(like, requires_grad=False), groups)


def pad_1x1_to_3x3(kernel: Tensor) -> Tensor:
    """``(C_out, C_in, 1, 1)`` -> ``(C_out, C_in, 3, 3)``, the kernel at the centre tap."""
    return F.pad(kernel, [1, 1, 1, 1])


def check_half_range(kernel: Tensor, bias: Tensor) -> None:
    """Refuse an equivalent kernel or bias that was rounded to infinity.

    Raises:
        OverflowError: If they are float16 and have infinite values.
    """
    if kernel.dtype == torch.float16 and not (kernel.isfinite().all() and bias.isfinite().all()):
        raise OverflowError(
            'the equivalent kernel or bias exceeds the range of float16 (65504); '
            'convert in float32 (model.float()) and keep float32 or use bfloat16'
        )

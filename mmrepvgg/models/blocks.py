"""The RepVGG block: three branches while training, one 3x3 convolution in deploy form."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from .forms import TRAIN_BRANCHES, check_forms
from .fusion import check_half_range, fuse_conv_norm, fuse_identity_norm, pad_1x1_to_3x3
from .geometry import add_margins, check_geometry, make_deploy_conv, make_pairs, require_agreement
from .recompute import compute_twice
from .tail import make_activation, make_se_layer


class RepVGGBlock(BaseModule):
    """``act(SE(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)))``, or ``act(SE(conv3x3(x)))`` in deploy form.

    The identity branch exists where input and output have the same shape. Arguments and state-dict keys are those of
    mmpretrain's block. Segmentation codes change stride, padding and dilation of the 3x3 convolution later: the 1x1
    branch and the switch follow it.

    Args:
        padding: Padding of the 3x3 convolution. If it differs from ``dilation``, there is no identity branch.
        padding_mode: ``'zeros'``, ``'reflect'``, ``'replicate'`` or ``'circular'``, in both forms.
        se_cfg: Arguments of ``SELayer``, which stays in the deploy form, or None for no SE.
        with_cp: Recompute the branches in the backward pass instead of storing them.
        conv_cfg: Convolution of the branches. The deploy form always has a plain ``Conv2d``.
        norm_cfg: Normalisation of the branches. Only batch norms can be switched.
        act_cfg: Activation, or None.
        se_after_act: SE follows the activation (RepVGGplus) instead of preceding it.
    """

    # torch.jit.script compiles the block for the form that it has at that time.
    __constants__ = ['deploy', 'has_identity', 'own_padding', 'se_after_act', 'with_cp']
    __jit_unused_properties__ = ['is_init']

    # The modules that the switch replaces.
    train_parts: tuple[str, ...] = TRAIN_BRANCHES

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: str = 'zeros',
        se_cfg: Mapping[str, Any] | None = None,
        with_cp: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
        *,
        se_after_act: bool = False,
    ):
        super().__init__(init_cfg)
        check_geometry(in_channels, out_channels, stride, padding, dilation, groups, padding_mode)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride, self.padding, self.dilation, self.padding_mode = stride, padding, dilation, padding_mode
        self.se_cfg, self.conv_cfg, self.norm_cfg, self.act_cfg = se_cfg, conv_cfg, norm_cfg, act_cfg
        self.with_cp, self.se_after_act, self.deploy = with_cp, se_after_act, deploy
        self.has_identity = in_channels == out_channels and stride == 1 and padding == dilation
        if deploy:
            self.branch_reparam = make_deploy_conv(self)
        else:
            self._make_branches()
        self.own_padding = padding - self._get_conv().padding[0]  # what Conv2dAdaptivePadding adds by itself
        self.se_layer = make_se_layer(se_cfg, out_channels)
        self.act = make_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H', W')``, the size that the 3x3 convolution gives."""
        y = self.branch_reparam(x) if self.deploy else self._compute_branches(x)
        return self.se_layer(self.act(y)) if self.se_after_act else self.act(self.se_layer(y))

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """The one 3x3 convolution that equals the branches in eval mode.

        It is computed in float64, rounded once to the weights' dtype, and differentiable.

        Returns:
            tuple[Tensor, Tensor]: Kernel ``(C_out, C_in // groups, 3, 3)`` and bias ``(C_out,)``.

        Raises:
            FusionError: If a branch is no fixed linear map in eval mode, or if the branches contradict each other.
        """
        conv = self._get_conv()
        if self.deploy:
            return conv.weight, conv.bias
        kernel, bias = self._sum_kernels()
        return kernel.to(conv.weight.dtype), bias.to(conv.weight.dtype)

    def switch_to_deploy(self) -> None:
        """Replace the branches by the equivalent convolution, in place. A second call does nothing.

        The block keeps its dtype, device, memory format and train or eval mode. The convolution requires gradients if
        any branch did. No random number is drawn.

        Raises:
            FusionError: If a branch can't be fused. The block is unchanged then.
            OverflowError: If the kernel is too large for float16 weights. The block is unchanged then.
        """
        switch_blocks([self])

    def _make_conv(self) -> nn.Conv2d:
        """The convolution of the deploy form, not filled yet."""
        old = self._get_conv()
        is_last = old.weight.is_contiguous(memory_format=torch.channels_last)
        conv: Any = make_deploy_conv(old, device='meta').to(old.weight.dtype).to_empty(device=old.weight.device)
        conv.to(memory_format=torch.channels_last if is_last else torch.contiguous_format)
        trained = any(p.requires_grad for name, p in self.named_parameters() if name.startswith(self.train_parts))
        return conv.requires_grad_(trained).train(self.training)

    @torch.no_grad()
    def _fill_conv(self, conv: Any) -> None:
        kernel, bias = self._sum_kernels()
        conv.weight.copy_(kernel)
        conv.bias.copy_(bias)
        check_half_range(conv.weight, conv.bias)

    def _become(self, conv: nn.Conv2d) -> None:
        for name in self.train_parts:
            delattr(self, name)
        self.branch_reparam, self.deploy = conv, True

    def _compute_branches(self, x: Tensor) -> Tensor:
        if self.with_cp and not torch.jit.is_scripting():
            return compute_twice(self._sum_branches, x, self)
        else:  # without else, TorchScript would compile both
            return self._sum_branches(x)

    # The methods in which kinds of blocks differ: the branches, their sum, the sum as one kernel, the main convolution.

    def _make_branches(self) -> None:
        self.branch_norm: Any = build_norm_layer(self.norm_cfg, self.in_channels)[1] if self.has_identity else None
        self.branch_3x3, self.branch_1x1 = self._make_branch(3), self._make_branch(1)

    def _sum_branches(self, x: Tensor) -> Tensor:
        y = self.branch_3x3(x) + self.branch_1x1(self._take_centres(x))
        if self.branch_norm is not None:
            y += self.branch_norm(x)  # into the sum itself: a new tensor takes time
        return y

    def _sum_kernels(self) -> tuple[Tensor, Tensor]:
        """The equivalent kernel and bias of the branches, float64."""
        kernel, bias = fuse_conv_norm(self.branch_3x3)
        kernel_1x1, bias_1x1 = fuse_conv_norm(self.branch_1x1)
        require_agreement(self.branch_3x3.conv, self.branch_1x1.conv, self.has_identity)
        if self.branch_norm is not None:
            kernel_identity, bias_identity = fuse_identity_norm(self.branch_norm, self.groups)
            kernel_1x1, bias_1x1 = kernel_1x1 + kernel_identity, bias_1x1 + bias_identity
        kernel += pad_1x1_to_3x3(kernel_1x1)  # into itself: it may be the largest tensor of all
        return kernel, bias + bias_1x1

    def _get_conv(self) -> Any:
        return self.branch_reparam if self.deploy else self.branch_3x3.conv

    def _take_centres(self, x: Tensor) -> Tensor:
        """The pixels under the centre tap of the 3x3 convolution: the input of the 1x1 branch.

        A strided 1x1 convolution would do the same, but on AVX-512 oneDNN's weight gradient of it corrupts the heap.
        """
        conv = self.branch_3x3.conv
        conv_1x1 = self.branch_1x1.conv
        if not torch.jit.is_scripting():
            make_pairs(conv, conv_1x1)
        rows = conv.padding[0] + self.own_padding - conv.dilation[0]
        columns = conv.padding[1] + self.own_padding - conv.dilation[1]
        if rows != 0 or columns != 0:
            x = add_margins(x, rows, columns, conv.padding_mode)
        rows, columns = conv.stride[0] // conv_1x1.stride[0], conv.stride[1] // conv_1x1.stride[1]
        if rows == 1 and columns == 1:
            return x
        # the pixels x[:, :, ::rows, ::columns], whose gradient would be in NCHW, and slow down all that follows
        return F.avg_pool2d(x, 1, (rows, columns))

    def _make_branch(self, kernel_size: int, with_norm: bool = True) -> Any:
        """A 3x3 convolution, or a 1x1 convolution for the output of :meth:`_take_centres`, and a norm behind it."""
        options: dict[str, Any] = dict(groups=self.groups, bias=False)
        if kernel_size == 3:
            options |= dict(stride=self.stride, padding=self.padding, dilation=self.dilation)
            if self.padding_mode != 'zeros':  # not every layer in place of Conv2d has this argument
                options['padding_mode'] = self.padding_mode
        conv = build_conv_layer(self.conv_cfg, self.in_channels, self.out_channels, kernel_size, **options)
        branch = nn.Sequential(OrderedDict(conv=conv))
        if with_norm:
            branch.add_module('norm', build_norm_layer(self.norm_cfg, self.out_channels)[1])
        return branch

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        check_forms({prefix: self}, state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)


def switch_blocks(blocks: Iterable[RepVGGBlock]) -> None:
    """Switch all of ``blocks``, or none: every convolution is computed before the first block changes."""
    for block, conv in _fuse_blocks(blocks).items():
        block._become(conv)


def copy_switched(blocks: Iterable[RepVGGBlock]) -> list[RepVGGBlock]:
    """Copies of ``blocks`` in deploy form. What the switch replaces is not copied: it would take memory for nothing."""
    blocks = list(blocks)
    convs = _fuse_blocks(blocks)
    copies = []
    for block in blocks:
        parts = [] if block.deploy else [getattr(block, part, None) for part in block.train_parts]
        copied = copy.deepcopy(block, {id(part): None for part in parts})
        if not block.deploy:
            copied._become(convs.pop(block))
        copies.append(copied)
    return copies


def _fuse_blocks(blocks: Iterable[RepVGGBlock]) -> dict[RepVGGBlock, nn.Conv2d]:
    """The convolutions that replace the branches of ``blocks``. The blocks themselves do not change."""
    # All get their addresses before the first kernel in float64: between them such kernels would leave holes that took
    # as much memory as the model itself. The last ones are the largest, and are filled while most memory is free.
    convs = {block: block._make_conv() for block in blocks if not block.deploy}
    for block, conv in reversed(convs.items()):
        block._fill_conv(conv)
    return convs

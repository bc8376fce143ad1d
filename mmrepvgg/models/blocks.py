"""The RepVGG block: three branches while training, one 3x3 convolution in deploy form."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import skip_init

from .config_types import get_type_name
from .fake_quant import ActivationQuantizer, FakeQuantization, convolve
from .forms import DEPLOY_BRANCH, DEPLOY_NORM, SUM_NORM, TRAIN_BRANCHES, check_form
from .fusion import fuse_conv_norm, fuse_identity_norm, pad_1x1_to_3x3
from .inserted_norm import complete_state_dict, make_inserted_norm
from .int8 import fake_quantize_kernel
from .recompute import compute_twice
from .squeeze_excite import SELayer

PADDING_MODES = ('zeros', 'reflect', 'replicate', 'circular')


class RepVGGBlock(BaseModule):
    """``act(SE(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)))``, or ``act(SE(conv3x3(x)))`` in deploy form.

    The identity branch exists where input and output have the same shape. Arguments and state-dict keys are
    those of mmpretrain's block.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the block.
        padding: Padding of the 3x3 convolution.
        dilation: Dilation of the 3x3 convolution. Where it differs from ``padding`` there is no identity branch.
        groups: Groups of the convolutions.
        padding_mode: ``'zeros'``, ``'reflect'``, ``'replicate'`` or ``'circular'``; holds in both forms.
        se_cfg: Arguments of :class:`SELayer`, which stays in the deploy form; None for no SE.
        se_after_act: SE follows the activation (RepVGGplus) instead of preceding it.
        with_cp: Recompute the branches in the backward pass instead of storing them. The batch norms'
            statistics are updated once a step all the same.
        conv_cfg: Convolution of the branches. The deploy form's is always a plain ``Conv2d``.
        norm_cfg: Normalisation of the branches. Only batch norms can be switched.
        act_cfg: Activation; None for none.
        deploy: Build the deploy form.
        init_cfg: Initialisation, as for any mmengine module.
        deploy_norm: Batch norm to insert behind the convolution of the deploy form, for fine-tuning; the switch
            folds it in again. It is the identity function when a deploy-form state dict is loaded.
        quantization: Quantization-aware training: arguments of :class:`FakeQuantization`. In train form the block is
            then one convolution, too, of its input on the grid of uint8 with its equivalent kernel on that of int8.
            Its batch norms stay in eval mode, their statistics being constants of that kernel; their gains and biases
            train. The switch drops the quantizer and keeps the kernel as it was before rounding.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range.
    """

    # For torch.jit.script: the form is decided when the block is compiled.
    __constants__ = [
        *('deploy', 'stride', 'padding', 'dilation', 'padding_mode', 'has_identity', 'se_after_act', 'with_cp')
    ]
    __jit_unused_properties__ = ['is_init', 'is_plain']

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
        se_after_act: bool = False,
        with_cp: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
        deploy_norm: dict | None = None,
        quantization: Mapping[str, Any] | None = None,
    ):
        super().__init__(init_cfg)
        if deploy_norm is not None and not deploy:
            raise ValueError(
                f'deploy_norm is inserted into the deploy form and needs deploy=True, got deploy={deploy!r}'
            )
        if quantization is not None and deploy:
            raise ValueError(
                f'quantization is trained in train form and needs deploy=False, got deploy={deploy!r}; the exported '
                'file is what is quantized of a converted model'
            )
        _check_integers(1, in_channels=in_channels, out_channels=out_channels, stride=stride, dilation=dilation)
        _check_integers(1, groups=groups)
        _check_integers(0, padding=padding)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f'groups must divide in_channels and out_channels ({in_channels} and {out_channels}), got {groups}'
            )
        if padding_mode not in PADDING_MODES:
            raise ValueError(f'padding_mode must be one of {", ".join(PADDING_MODES)}, got {padding_mode!r}')
        if se_cfg is not None and not isinstance(se_cfg, Mapping):
            raise TypeError(f'se_cfg must be a dict or None, got {se_cfg!r}')

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.padding_mode = padding_mode
        self.se_after_act = se_after_act
        self.has_identity = in_channels == out_channels and stride == 1 and padding == dilation
        self.with_cp = with_cp
        self.deploy = deploy

        if deploy:
            self.branch_reparam = self._make_deploy_conv()
            self.branch_reparam.reset_parameters()
        else:
            self._make_branches(conv_cfg, norm_cfg)
        self.deploy_norm = nn.Identity() if deploy_norm is None else make_inserted_norm(deploy_norm, out_channels)

        self.se_layer = nn.Identity() if se_cfg is None else SELayer(out_channels, **se_cfg)
        self.act = nn.Identity() if act_cfg is None else build_activation_layer(_in_place(act_cfg))

        self.quantization = None if quantization is None else FakeQuantization.from_config(quantization)
        # annotated here and not for the class, whose annotations TorchScript would have to understand
        self.input_quantizer: Any = None
        if self.quantization is not None:
            self.input_quantizer = ActivationQuantizer(
                self.quantization.ranges == 'learned', self.quantization.momentum
            )
            self.train()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C_in, H, W)`` -> ``(N, C_out, H', W')``, with H' and W' as of the 3x3 convolution."""
        if self.deploy:
            y = self.deploy_norm(self.branch_reparam(x))
        elif torch.jit.is_scripting():
            y = self._sum_branches(x)
        else:
            y = self._compute_train_form(x)
        return self.se_layer(self.act(y)) if self.se_after_act else self.act(self.se_layer(y))

    def train(self, mode: bool = True) -> 'RepVGGBlock':
        """As ``nn.Module.train``; the batch norms of a quantization-aware block stay in eval mode."""
        super().train(mode)
        if self.input_quantizer is not None:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def is_plain(self) -> bool:
        """Whether the block is one convolution: in deploy form, and no norm is inserted."""
        return self.deploy and isinstance(self.deploy_norm, nn.Identity)

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """The one 3x3 convolution that equals the branches in eval mode.

        Computed in float64 and rounded once to the weights' dtype; differentiable, so that the equivalent
        kernel can be constrained or quantized while the branches train.

        Returns:
            tuple[Tensor, Tensor]: Kernel ``(C_out, C_in // groups, 3, 3)`` and bias ``(C_out,)``.

        Raises:
            FusionError: If a branch has a layer that is no fixed linear map in eval mode.
        """
        if self.deploy:
            deploy_conv: Any = self.branch_reparam
            if self.is_plain:
                return deploy_conv.weight, deploy_conv.bias
            kernel, bias = fuse_conv_norm(nn.Sequential(deploy_conv, self.deploy_norm))
            return kernel.to(deploy_conv.weight.dtype), bias.to(deploy_conv.weight.dtype)
        kernel, bias = self._sum_kernels()
        conv: Any = self.branch_3x3[0]
        return kernel.to(conv.weight.dtype), bias.to(conv.weight.dtype)

    def switch_to_deploy(self) -> None:
        """Replace the branches by the equivalent convolution, in place; a second call does nothing.

        Keeps dtype, device, memory format, train or eval mode, and ``requires_grad`` (the convolution requires
        it if any branch did). Draws no random number.

        Raises:
            FusionError: If a branch can't be fused. The block is unchanged then.
            OverflowError: If the equivalent kernel is too large for the weights' dtype (float16). Likewise.
        """
        switch_blocks([self])

    @torch.no_grad()
    def _fuse_branches(self) -> nn.Conv2d:
        """The convolution for the deploy form; the block itself stays as it is."""
        kernel, bias = self.get_equivalent_kernel_bias()
        if kernel.dtype == torch.float16 and not (kernel.isfinite().all() and bias.isfinite().all()):
            raise OverflowError(
                'the equivalent kernel or bias exceeds the range of float16 (65504); '
                'convert in float32 (model.float()) and keep float32 or use bfloat16'
            )
        conv_3x3: Any = self.branch_reparam if self.deploy else self.branch_3x3[0]
        if conv_3x3.weight.is_contiguous(memory_format=torch.channels_last):
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        conv = self._make_deploy_conv(dtype=kernel.dtype, device=kernel.device)
        fused = (*self.train_parts, DEPLOY_BRANCH, DEPLOY_NORM)
        trained = any(p.requires_grad for name, p in self.named_parameters() if name.startswith(fused))
        conv.weight = nn.Parameter(kernel, requires_grad=trained)
        conv.bias = nn.Parameter(bias, requires_grad=trained)
        return conv.train(self.training)

    def _become(self, conv: nn.Conv2d) -> None:
        if not self.deploy:
            for name in self.train_parts:
                delattr(self, name)
        self.deploy_norm = nn.Identity().train(self.training)
        self.branch_reparam = conv
        self.input_quantizer = None
        self.deploy = True

    def _compute_train_form(self, x: Tensor) -> Tensor:
        compute = self._sum_branches
        if self.input_quantizer is not None and self.input_quantizer.enabled:
            # not computed twice, which would observe the input a second time
            x, compute = self.input_quantizer(x), self._convolve_quantized
        if self.with_cp and self.training and torch.is_grad_enabled():
            return compute_twice(compute, x, self)
        return compute(x)

    def _convolve_quantized(self, x: Tensor) -> Tensor:
        assert self.quantization is not None
        kernel, bias = self.get_equivalent_kernel_bias()
        kernel = fake_quantize_kernel(kernel, self.quantization.granularity == 'per-channel')
        geometry: dict[str, Any] = dict(stride=self.stride, padding=self.padding, dilation=self.dilation)
        return convolve(x, kernel, bias, groups=self.groups, padding_mode=self.padding_mode, **geometry)

    # The three methods that make a kind of block: its branches, their sum, and the sum as one kernel.

    def _make_branches(self, conv_cfg: dict | None, norm_cfg: dict) -> None:
        self.branch_norm = build_norm_layer(norm_cfg, self.in_channels)[1] if self.has_identity else None
        self.branch_3x3 = self._make_branch(conv_cfg, norm_cfg, 3)
        self.branch_1x1 = self._make_branch(conv_cfg, norm_cfg, 1)

    def _sum_branches(self, x: Tensor) -> Tensor:
        y = self.branch_3x3(x) + self.branch_1x1(self._take_centres(x))
        if self.branch_norm is not None:
            y = y + self.branch_norm(x)
        return y

    def _sum_kernels(self) -> tuple[Tensor, Tensor]:
        """The equivalent kernel and bias of the train form, float64."""
        kernel, bias = fuse_conv_norm(self.branch_3x3)
        kernel_1x1, bias_1x1 = fuse_conv_norm(self.branch_1x1)
        kernel, bias = kernel + pad_1x1_to_3x3(kernel_1x1), bias + bias_1x1
        if self.branch_norm is not None:
            kernel_identity, bias_identity = fuse_identity_norm(self.branch_norm, self.groups)
            kernel, bias = kernel + kernel_identity, bias + bias_identity
        return kernel, bias

    def _take_centres(self, x: Tensor) -> Tensor:
        """The pixels under the centre tap of the 3x3 convolution: the input of the 1x1 branch.

        Subsampling before a 1x1 convolution of stride 1 is the same function as its stride, costs less, and
        avoids a heap corruption in oneDNN's weight gradient of strided 1x1 convolutions (channels_last, AVX-512).
        """
        margin = self.padding - self.dilation
        if margin < 0:
            x = F.pad(x, [margin, margin, margin, margin])
        elif margin > 0:
            mode = 'constant' if self.padding_mode == 'zeros' else self.padding_mode
            x = F.pad(x, [margin, margin, margin, margin], mode)
        return x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]

    def _make_branch(self, conv_cfg: dict | None, norm_cfg: dict | None, kernel_size: int) -> nn.Sequential:
        """A convolution of 3x3, or of 1x1 for what :meth:`_take_centres` gives, and a norm unless that is None."""
        geometry: dict[str, Any] = {}
        if kernel_size == 3:
            geometry = dict(stride=self.stride, padding=self.padding, dilation=self.dilation)
            # conv layers other than Conv2d need not know padding_mode
            if self.padding_mode != 'zeros':
                geometry['padding_mode'] = self.padding_mode
        conv = build_conv_layer(
            conv_cfg, self.in_channels, self.out_channels, kernel_size, groups=self.groups, bias=False, **geometry
        )
        branch = nn.Sequential(OrderedDict(conv=conv))
        if norm_cfg is not None:
            branch.add_module('norm', build_norm_layer(norm_cfg, self.out_channels)[1])
        return branch

    def _make_deploy_conv(self, **factory: Any) -> nn.Conv2d:
        return skip_init(
            nn.Conv2d,
            self.in_channels,
            self.out_channels,
            3,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            **factory,
        )

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        check_forms({prefix: self}, state_dict)
        if self.deploy and not self.is_plain:
            complete_state_dict(self.deploy_norm, state_dict, f'{prefix}{DEPLOY_NORM}.')
        super()._load_from_state_dict(state_dict, prefix, *args)


def switch_blocks(blocks: Iterable[RepVGGBlock]) -> None:
    """Switch all of ``blocks``, or none: every convolution is computed before the first block changes."""
    pending = [block for block in blocks if not block.is_plain]
    convs = [block._fuse_branches() for block in pending]
    for block, conv in zip(pending, convs, strict=True):
        block._become(conv)


def check_forms(blocks: Mapping[str, RepVGGBlock], state_dict: Mapping[str, Any]) -> None:
    """Refuse a state dict in which one of ``blocks``, by the prefix of its keys with the final dot, has another form.

    Raises:
        CheckpointFormError: Names the form found, the form wanted, and what to do.
    """
    for prefix, block in blocks.items():
        check_form(
            prefix,
            state_dict,
            deploy=block.deploy,
            inserted_norm=block.deploy and not block.is_plain,
            sum_norm=SUM_NORM in block.train_parts,
            quantized=block.input_quantizer is not None,
        )


def _in_place(act_cfg: dict) -> dict:
    """Let a ReLU overwrite its input, which is always a tensor of the block's own: 2 to 8% faster, and less memory."""
    return {'inplace': True, **act_cfg} if get_type_name(act_cfg.get('type')) == 'ReLU' else act_cfg


def _check_integers(minimum: int, **values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f'{name} must be an integer, got {value!r}')
        if value < minimum:
            raise ValueError(f'{name} must be at least {minimum}, got {value}')

"""RepVGG: Making VGG-style ConvNets Great Again (Ding et al., CVPR 2021, arXiv:2101.03697)."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .archs import ARCHS, Arch, get_arch
from .block_kinds import choose_block
from .blocks import RepVGGBlock, switch_blocks
from .forms import check_forms
from .out_indices import find_stages, resolve_out_indices

INIT_CFG = (
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
)


class RepVGG(BaseModule):
    """RepVGG backbone, with the arguments and state-dict keys of mmpretrain's class.

    Args:
        arch: Name of a preset (a key of ``mmrepvgg.models.archs.ARCHS``), or a dict with ``num_blocks`` and
            ``width_factor`` and, optionally, ``group_layer_map``, ``se_cfg``, ``se_after_act`` and ``stem_channels``.
        in_channels: Number of channels of the image.
        base_channels: Number of channels that is multiplied by ``2**i * width_factor[i]`` for stage ``i``.
        out_indices: Stages whose outputs are returned. They are counted from 0; negative ones count from the last. A
            pair ``(stage, block)`` asks for the output of one block. The network's order is kept.
        strides: Stride of each stage's first block. Stage ``i``'s output has stride ``2 * strides[0] * ... *
            strides[i]``.
        dilations: Dilation of each stage's blocks.
        frozen_stages: 0 freezes the stem, ``k`` the stem and the first ``k`` stages: they have no gradient, and their
            batch norms stay in eval mode. -1 freezes nothing.
        conv_cfg: Convolution of the training branches (default ``Conv2d``).
        norm_cfg: Normalisation of the training branches. Only batch norms can be switched.
        act_cfg: Activation after each block, or None.
        with_cp: Recompute the branches in the backward pass to save memory.
        deploy: Build the deploy form: each block is one 3x3 convolution.
        norm_eval: Keep all batch norms in eval mode while training.
        add_ppf: Add mmpretrain's MTSPPF pooling (YOLOX-PAI) after the last stage.
        init_cfg: Initialisation of the weights, for example ``dict(type='Pretrained', checkpoint=...)``.
        deploy_norm: Batch norm behind each convolution of the deploy form, for fine-tuning a converted model
            (``dict(type='BN')``). It needs ``deploy=True``; the switch folds it in again.
        block: ``'RepVGGBlock'``, or ``'QARepVGGBlock'`` for models that are to be quantized. Both have the same deploy
            form.
        quantization: Settings of quantization-aware training, for example ``dict(granularity='per-tensor')``. The keys
            are the attributes of :class:`mmrepvgg.models.fake_quant_settings.FakeQuantization`.
        branches: How the branches are computed while training: ``'separate'``, or ``'merged'``, which needs less memory
            (``mmrepvgg.models.merged_branches``). Both are the same function with the same
            keys.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range.
    """

    __jit_unused_properties__ = ['is_init']

    arch_settings = ARCHS

    def __init__(
        self,
        arch: str | Mapping[str, Any] | Arch,
        in_channels: int = 3,
        base_channels: int = 64,
        out_indices: int | Sequence[int | tuple[int, int]] = (3,),
        strides: Sequence[int] = (2, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict | None = dict(type='ReLU'),
        with_cp: bool = False,
        deploy: bool = False,
        norm_eval: bool = False,
        add_ppf: bool = False,
        init_cfg: dict | Sequence[dict] | None = INIT_CFG,
        *,
        deploy_norm: dict | None = None,
        block: str = 'RepVGGBlock',
        quantization: Mapping[str, Any] | None = None,
        branches: str = 'separate',
    ):
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        self.arch = get_arch(arch)
        num_stages = len(self.arch.num_blocks)
        for name, values in dict(strides=strides, dilations=dilations).items():
            if len(values) != num_stages:
                raise ValueError(f'{name} must have one number a stage ({num_stages}), got {tuple(values)}')
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= num_stages:
            raise ValueError(f'frozen_stages must be an integer from -1 to {num_stages}, got {frozen_stages!r}')

        self.in_channels = in_channels
        self.base_channels = base_channels
        self.out_indices = resolve_out_indices(out_indices, self.arch.num_blocks)
        self.strides = strides
        self.dilations = dilations
        self.frozen_stages = frozen_stages
        self.conv_cfg = conv_cfg
        self.norm_cfg = norm_cfg
        self.act_cfg = act_cfg
        self.with_cp = with_cp
        self.norm_eval = norm_eval
        self.deploy = deploy
        self._warn_when_trained = deploy and deploy_norm is None

        make_block = partial(
            choose_block(block, deploy, norm_cfg, deploy_norm, quantization, branches),
            se_cfg=self.arch.se_cfg,
            se_after_act=self.arch.se_after_act,
            with_cp=with_cp,
            conv_cfg=conv_cfg,
            act_cfg=act_cfg,
        )
        widths = [int(base_channels * 2**i * factor) for i, factor in enumerate(self.arch.width_factor)]
        self.out_channels = tuple(widths[stage] for stage in find_stages(self.out_indices))
        channels = min(self.arch.stem_channels, widths[0])
        self.stem = make_block(in_channels, channels, stride=2)

        self.stages = [f'stage_{i + 1}' for i in range(num_stages)]
        block_index = 1
        for i, stage_name in enumerate(self.stages):
            blocks = []
            for j in range(self.arch.num_blocks[i]):
                blocks.append(
                    make_block(
                        channels,
                        widths[i],
                        stride=strides[i] if j == 0 else 1,
                        padding=dilations[i],
                        dilation=dilations[i],
                        groups=self.arch.group_layer_map.get(block_index, 1),
                    )
                )
                channels = widths[i]
                block_index += 1
            self.add_module(stage_name, nn.Sequential(*blocks))
        self.ppf = _make_ppf(channels, norm_cfg, act_cfg) if add_ppf else nn.Identity()
        # Child 0 is the stem. The pooling, if there is one, belongs to the output of the last stage.
        self._out_children = [i + 1 + (i == num_stages - 1) for i in self.out_indices if isinstance(i, int)]
        self._out_blocks: dict[int, set[int]] = {}
        for stage, number in (i for i in self.out_indices if isinstance(i, tuple)):
            self._out_blocks.setdefault(stage + 1, set()).add(number)
        self._has_out_blocks = bool(self._out_blocks)
        self._freeze_stages()

    # Without a return annotation, since TorchScript has no tuples of variable length and returns a list.
    def forward(self, x: Tensor):
        """``(N, C_in, H, W)`` -> a tuple of the ``out_indices`` stages' features.

        Stage ``i`` with the default strides: ``(N, base_channels * 2**i * width_factor[i], H / 2**(i + 2),
        W / 2**(i + 2))``.
        """
        outs: list[Tensor] = []
        # The children are the stem, the stages and the pooling. TorchScript can't look them up by their names.
        for index, module in enumerate(self.children()):
            if torch.jit.is_scripting():
                if self._has_out_blocks:
                    raise RuntimeError('a RepVGG with pairs (stage, block) in out_indices can not be scripted')
                x = module(x)
            elif index in self._out_blocks:
                for number, block in enumerate(module):
                    x = block(x)
                    if number in self._out_blocks[index]:
                        outs.append(x)
            else:
                x = module(x)
            if index in self._out_children:
                outs.append(x)
        if torch.jit.is_scripting():
            return outs
        return tuple(outs)

    def train(self, mode: bool = True) -> 'RepVGG':
        """Set the mode. Frozen stages stay in eval mode, and so do all batch norms with ``norm_eval``."""
        super().train(mode)
        if mode and self._warn_when_trained:
            self._warn_when_trained = False
            warnings.warn(
                'training a RepVGG that was built with deploy=True: it has neither branches nor batch norms and will '
                'be less accurate. Train with deploy=False and convert the result with `reparameterize_checkpoint`. '
                'Ignore this only when you fine-tune a converted model.',
                stacklevel=1,  # the warning comes from this module: the project's tests make an error of it
            )
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def switch_to_deploy(self) -> None:
        """Replace the branches of every block by one convolution, in place. A second call does nothing.

        Raises:
            FusionError: If a block can't be fused. No block has changed then.
            OverflowError: If a kernel is too large for float16 weights. No block has changed then.
        """
        switch_blocks(self._named_blocks().values())
        self.deploy = True

    def _named_blocks(self, prefix: str = '') -> dict[str, RepVGGBlock]:
        modules = self.named_modules()
        return {f'{prefix}{name}.': module for name, module in modules if isinstance(module, RepVGGBlock)}

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        for name in ['stem', *self.stages[: self.frozen_stages]]:
            getattr(self, name).eval().requires_grad_(False)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # All blocks are checked before the first one loads, so that a refused state dict changes nothing.
        check_forms(self._named_blocks(prefix), state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _make_ppf(channels: int, norm_cfg: dict, act_cfg: dict | None) -> nn.Module:
    # Imported here: mmpretrain.models takes seconds to import, and few models have the pooling.
    from mmpretrain.models.backbones.repvgg import MTSPPF

    return MTSPPF(channels, channels, norm_cfg=norm_cfg, act_cfg=act_cfg)

"""A batch norm behind the convolution of a deploy form, for fine-tuning a converted model."""

from collections.abc import MutableMapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .blocks import RepVGGBlock
from .forms import DEPLOY_BRANCH, DEPLOY_NORM
from .fusion import fuse_conv_norm
from .geometry import make_deploy_conv


class InsertedNormBlock(RepVGGBlock):
    """``act(SE(BN(conv3x3(x))))``: a deploy form that can be trained. The switch folds the batch norm in again.

    After loading the state dict of a deploy form it computes the same function: the norm is the identity function. Its
    keys are those of the deploy form and ``deploy_norm.*``. The arguments are those of :class:`RepVGGBlock`;
    ``norm_cfg`` describes the inserted norm.

    Raises:
        ValueError: If the norm is no batch norm with gains and running statistics.
    """

    train_parts = (DEPLOY_BRANCH, DEPLOY_NORM)

    def _make_branches(self) -> None:
        self.branch_reparam = make_deploy_conv(self)
        self.deploy_norm = norm = build_norm_layer(self.norm_cfg, self.out_channels)[1]
        if not isinstance(norm, _BatchNorm) or not norm.affine or not norm.track_running_stats:
            raise ValueError(
                "deploy_norm must be a batch norm with gains and running statistics, for example dict(type='BN'), got "
                f'{self.norm_cfg}; others can neither start as the identity function nor be folded in'
            )

    def _sum_branches(self, x: Tensor) -> Tensor:
        return self.deploy_norm(self.branch_reparam(x))

    def _sum_kernels(self) -> tuple[Tensor, Tensor]:
        return fuse_conv_norm(nn.Sequential(self.branch_reparam, self.deploy_norm))

    def _get_conv(self) -> nn.Conv2d:
        return self.branch_reparam

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        prefix_norm = f'{prefix}{DEPLOY_NORM}.'
        if not self.deploy and not any(key.startswith(prefix_norm) for key in state_dict):
            # the identity function
            state = {key: torch.zeros_like(value) for key, value in self.deploy_norm.state_dict().items()}
            state['running_var'] += 1
            state['weight'] += (1 + self.deploy_norm.eps) ** 0.5
            state_dict.update({prefix_norm + key: value for key, value in state.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

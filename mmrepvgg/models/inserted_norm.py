"""A batch norm behind the convolution of a deploy form, for fine-tuning a converted model."""

from collections.abc import MutableMapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def make_inserted_norm(cfg: dict, channels: int) -> nn.Module:
    """Build the norm.

    Raises:
        ValueError: If it is none that can be the identity function and be folded in again.
    """
    norm = build_norm_layer(cfg, channels)[1]
    if not isinstance(norm, _BatchNorm) or not norm.affine or not norm.track_running_stats:
        raise ValueError(
            'deploy_norm must be a batch norm with gains and running statistics, or it could be neither the identity '
            f"function nor folded in, for example dict(type='BN'), got {cfg}"
        )
    return norm


def complete_state_dict(norm: Any, state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Give a state dict that has no key with ``prefix`` the tensors of a ``norm`` that changes nothing."""
    if any(key.startswith(prefix) for key in state_dict):
        return
    state = {key: torch.zeros_like(value) for key, value in norm.state_dict().items()}
    state['running_var'] += 1
    state['weight'] += (1 + norm.eps) ** 0.5
    state_dict.update({prefix + key: value for key, value in state.items()})

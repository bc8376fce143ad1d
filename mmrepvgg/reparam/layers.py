"""The outputs of a model's layers, in either form."""

from typing import Any

import torch
from torch import Tensor, nn

from ..models.blocks import RepVGGBlock


@torch.no_grad()
def record_layers(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a model, and keep what its layers give.

    A block is one layer: the sum of its branches, or the output of its one convolution, before SE and activation.
    Convolutions and linear layers outside of these, such as those of SE, are further layers.

    Returns:
        The model's output, and the outputs of the layers by their names, in the order in which they are computed.
    """
    outputs: dict[str, Tensor] = {}
    blocks = {name: module for name, module in model.named_modules() if isinstance(module, RepVGGBlock)}
    tails = {id(tail) for block in blocks.values() for tail in (block.se_layer, block.act)}
    inner = {
        id(part)
        for block in blocks.values()
        for name, child in block.named_children()
        if id(child) not in tails
        for part in child.modules()
    }

    def keep(name: str, output: Tensor) -> None:
        outputs[name] = output.clone()  # an activation may overwrite it

    handles: list[Any] = []
    for name, module in model.named_modules():
        if isinstance(module, RepVGGBlock):
            tail = module.act if module.se_after_act else module.se_layer
            handles.append(tail.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0])))
        elif isinstance(module, nn.Conv2d | nn.Linear) and id(module) not in inner:
            handles.append(module.register_forward_hook(lambda _, inputs, output, name=name: keep(name, output)))
    try:
        return model(x), outputs
    finally:
        for handle in handles:
            handle.remove()

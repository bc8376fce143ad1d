"""The cost of a model: parameters, multiply-adds, activations."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.backbone import RepVGG
from ..models.building import NoRandomWeights
from ..models.channels import get_in_channels
from ..models.complexity import count_params
from ..models.heads import AuxiliaryClsHead
from .forms import build_form


@dataclass(frozen=True)
class Cost:
    """The cost of one part of a model.

    Attributes:
        name: Name of the part, for example ``'backbone.stage_1'``.
        params: Number of parameters.
        macs: Number of multiply-adds of its convolutions and linear layers for one image. Batch norms, activations,
            additions and pooling are not counted.
        activations: Number of outputs of its convolutions and linear layers for one image.
    """

    name: str
    params: int
    macs: int
    activations: int


def measure_cost(cfg: Config, deploy: bool, shape: tuple[int, int] = (224, 224)) -> list[Cost]:
    """Measure the model of ``cfg`` in one form, part by part, for the forward pass of one image.

    The model has shapes and no numbers, so that a large arch takes as long as a small one. In train form the auxiliary
    classifiers are counted, too. A model without blocks of this project is switched by its structure.

    Args:
        cfg: The config.
        deploy: Measure the deploy form instead of the train form.
        shape: Height and width of the image in pixels.

    Returns:
        list[Cost]: The stem, each stage and the other parts of the model, and ``'total'`` at the end.

    Raises:
        ValueError: If the shape is not two positive numbers.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'shape must be two positive numbers, height and width in pixels, got {shape}')
    with NoRandomWeights():
        model = build_form(cfg, deploy).to('meta')
    image = torch.empty(1, get_in_channels(model), *shape, device='meta')
    activations: dict[str, int] = {}
    macs: dict[str, int] = {}
    _watch(model, activations, macs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)

    costs = []
    for name, part in _split(model):
        layers = [layer for layer in activations if f'{layer}.'.startswith(f'{name}.')]
        costs.append(
            Cost(name, count_params(part), *(sum(each[layer] for layer in layers) for each in (macs, activations)))
        )
    total = Cost('total', count_params(model), counter.get_total_flops() // 2, sum(activations.values()))
    return [*(cost for cost in costs if cost.params), total]


def _split(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model; a RepVGG in it counts as its own parts, and so does what is all of the model."""
    num_params = count_params(model)
    for name, part in model.named_children():
        if isinstance(part, RepVGG) or count_params(part) == num_params:
            yield from ((f'{name}.{child}', module) for child, module in part.named_children())
        else:
            yield name, part


def _watch(model: nn.Module, activations: dict[str, int], macs: dict[str, int]) -> None:
    """Let each forward pass fill both, by the names of the layers, and run the auxiliary classifiers."""

    def count(name: str, layer: Any, output: Tensor) -> None:
        activations[name] = output.numel()
        macs[name] = output.numel() * layer.weight[0].numel()

    def compute_aux_scores(head: AuxiliaryClsHead, inputs: tuple) -> None:
        head.compute_aux_scores(*inputs)

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, inputs, output, name=name: count(name, module, output))
        elif isinstance(module, AuxiliaryClsHead):
            module.register_forward_pre_hook(compute_aux_scores)

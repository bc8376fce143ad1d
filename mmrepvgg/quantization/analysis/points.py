"""Where a classifier in deploy form is quantized: its layers, and the tensors between them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor, nn

from ...models.blocks import RepVGGBlock
from ...models.forms import DEPLOY_BRANCH
from ...models.heads import AuxiliaryClsHead
from ...models.squeeze_excite import SELayer


@dataclass(frozen=True)
class Point:
    """A tensor of the network.

    Attributes:
        module: Whose input or output it is.
        is_input: Which of them.
        layer: The layer with which it is rounded.
    """

    module: nn.Module
    is_input: bool
    layer: str


def find_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers by name; a block's own convolution has the block's name."""
    return {
        name.removesuffix(f'.{DEPLOY_BRANCH}'): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def find_points(model: nn.Module) -> dict[str, Point]:
    """Where int8 ONNX files round activations: at the inputs of layers, and of the poolings before them.

    A layer's input has the layer's name. A tensor is rounded for all that take it: with the pooling of an SE layer,
    the product behind it sees rounded values, too. What lies between a layer and the next one's input stays float32.
    """
    layers = find_layers(model)
    points = {name: Point(layer, True, name) for name, layer in layers.items()}
    last, block = list(layers)[-1], None
    for name, module in model.named_modules():
        if isinstance(module, SELayer):
            points[f'{name} input'] = Point(module, True, f'{name}.conv1.conv')
        elif isinstance(module, GlobalAveragePooling):  # itself it takes a tuple
            points[f'{name} input'] = Point(module.gap, True, last)
        elif isinstance(module, RepVGGBlock):
            block = module
        elif isinstance(module, AuxiliaryClsHead) and block is not None:  # it pools by itself
            points[f'{name} input'] = Point(block, False, last)
    return points


@contextmanager
def intercept(points: Mapping[str, Point], function: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``function`` with the name and the tensor of each point that a forward pass reaches.

    What it returns takes the tensor's place; None leaves that as it is.
    """
    handles: list[Any] = []
    try:
        for name, point in points.items():
            if point.is_input:
                handles.append(
                    point.module.register_forward_pre_hook(lambda module, args, name=name: function(name, args[0]))
                )
            else:
                handles.append(
                    point.module.register_forward_hook(lambda module, args, output, name=name: function(name, output))
                )
        yield
    finally:
        for handle in handles:
            handle.remove()

"""The layers of a classifier in deploy form, and the tensors between them that int8 rounds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmpretrain.models.necks import GlobalAveragePooling
from mmpretrain.models.utils.se_layer import SELayer
from torch import Tensor, nn

from ...models.blocks import RepVGGBlock
from ...models.forms import name_layer
from ...models.heads import AuxiliaryClsHead


@dataclass(frozen=True)
class Point:
    """A tensor of the network.

    Attributes:
        module: Module that takes or gives the tensor.
        is_input: Whether the tensor is the input of the module, or its output.
        layer: Name of the layer together with which the tensor is rounded.
    """

    module: nn.Module
    is_input: bool
    layer: str


def find_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers by name. A block's own convolution has the block's name."""
    return {
        name_layer(name): module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }


def to_channels(module: nn.Module, x: Tensor) -> Tensor:
    """A tensor at a module as ``(N, C, ...)``. What a linear layer has between N and C counts as further images."""
    return x.flatten(0, -2) if isinstance(module, nn.Linear) else x


def find_points(model: nn.Module) -> dict[str, Point]:
    """The tensors that int8 ONNX files round: the inputs of layers, and of the poolings before layers.

    The input of a layer has the name of the layer. All operations that take a rounded tensor get rounded values: the
    product behind an SE layer too, since it takes the input of the pooling. Other tensors stay float32. Poolings
    outside of mmpretrain's SE layers and neck are taken for float32, too: averages hide the rounding before them.
    """
    layers = find_layers(model)
    points = {name: Point(layer, True, name) for name, layer in layers.items()}
    last, block = next(reversed(layers), ''), None
    for name, module in model.named_modules():
        if isinstance(module, SELayer):
            points[f'{name} input'] = Point(module, True, f'{name}.conv1.conv')
        elif isinstance(module, GlobalAveragePooling):  # the module itself takes a tuple
            points[f'{name} input'] = Point(module.gap, True, last)
        elif isinstance(module, RepVGGBlock):
            block = module
        elif isinstance(module, AuxiliaryClsHead) and block is not None:  # the head has a pooling of its own
            points[f'{name} input'] = Point(block, False, last)
    return points


@contextmanager
def intercept(points: Mapping[str, Point], function: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call a function for each point of a forward pass.

    Args:
        points: Points by name.
        function: Function of the name and the tensor of a point. If it returns a tensor, this replaces the first one.
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

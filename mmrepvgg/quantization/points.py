"""Where a classifier in deploy form is quantized: its layers, and the tensors between them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..models.blocks import RepVGGBlock
from ..models.forms import DEPLOY_BRANCH
from ..models.squeeze_excite import SELayer


@dataclass(frozen=True)
class Point:
    """A tensor of the network: a module's input or its output."""

    module: nn.Module
    is_input: bool


def find_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers by name; a block's own convolution has the block's name."""
    return {
        name.removesuffix(f'.{DEPLOY_BRANCH}'): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def find_points(model: nn.Module) -> dict[str, Point]:
    """Where ONNX Runtime's static quantization (QDQ) puts a quantizer into the exported model.

    That is at the inputs and outputs of all operators, except between an operator and its ReLU: they become one.
    A layer's input has the layer's name; the others say what they are. A tensor may occur twice, as the output of one
    module and the input of another: rounding it again to the same grid changes nothing.
    """
    points = {name: Point(layer, True) for name, layer in find_layers(model).items()}
    for name, module in model.named_modules():
        part: Any = module
        if isinstance(module, nn.Linear):
            points[f'{name} output'] = Point(module, False)
        elif isinstance(module, RepVGGBlock):
            points[f'{name} output'] = Point(module, False)
            if not isinstance(module.se_layer, nn.Identity):
                points[f'{name}.se_layer input'] = Point(module.se_layer, True)
            if not isinstance(module.act, nn.ReLU | nn.ReLU6 | nn.Identity):
                points[f'{name}.act input'] = Point(module.act, True)
        elif isinstance(module, SELayer):
            # the pooled means and what is squeezed are inputs of its convolutions
            points[f'{name}.conv2 gate'] = Point(part.conv2.conv, False)
            points[f'{name}.conv2 output'] = Point(part.conv2, False)
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

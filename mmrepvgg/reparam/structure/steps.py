"""A graph of computing steps, as the search for patterns sees it: from PyTorch code or from an ONNX file."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .maps import AffineMap, ConvMap, Scaling, make_channel_scale


@dataclass(frozen=True, eq=False)
class Constant:
    """What ``x + value``, ``x - value``, ``value - x`` or ``x * value`` does. The shape of x tells which map that is.

    Attributes:
        value: The number or tensor.
        kind: ``'sum'``, ``'difference'``, ``'reversed'`` or ``'product'``.
    """

    value: Any
    kind: str

    def describe(self, earlier: AffineMap) -> AffineMap | None:
        """The map, behind the map ``earlier``; None if it is none, or if nothing tells the number of channels."""
        value = self.value
        axes = earlier.num_axes if isinstance(earlier, ConvMap) else 0
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, Tensor):
            axes = axes or value.dim() - 2
            if axes < 1 or list(value.shape) not in ([1, value.numel(), *[1] * axes], [value.numel(), *[1] * axes]):
                return None
            numbers = value.detach().flatten().double()
        elif self.kind == 'product':
            return Scaling(float(value))
        elif value == 0:
            return Scaling(-1.0 if self.kind == 'reversed' else 1.0)
        elif isinstance(earlier, ConvMap):
            numbers = torch.full((len(earlier.weight),), float(value), dtype=torch.float64)
        else:
            return None
        ones, nothing = torch.ones_like(numbers), torch.zeros_like(numbers)
        scale = {'product': numbers, 'reversed': -ones}.get(self.kind, ones)
        shift = {'product': nothing, 'difference': -numbers}.get(self.kind, numbers)
        return make_channel_scale(scale, shift, axes)


@dataclass(eq=False)
class Step:
    """One step of a graph.

    Attributes:
        name: Name for messages.
        inputs: The steps whose values it takes.
        does: The maps that it may be (several if the number of axes is not known), a constant, or the sign of the second
            operand of a sum; None if it is something else.
        is_conv: Whether it is a convolution, whose place a new one can take.
        reason: Why it is something else, if it looks like a linear layer.
        users: The steps that take its value.
        origin: The node of PyTorch's or ONNX's graph.
    """

    name: str
    inputs: list['Step']
    does: list[AffineMap] | Constant | float | None = None
    is_conv: bool = False
    reason: str | None = None
    users: list['Step'] = field(default_factory=list)
    origin: Any = None

    def __post_init__(self) -> None:
        for each in dict.fromkeys(self.inputs):
            each.users.append(self)

    @property
    def is_nothing(self) -> bool:
        return self.does == [Scaling()]

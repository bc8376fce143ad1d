"""A graph of computing steps, as the search for patterns sees it: from PyTorch code or from an ONNX file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .maps import LAYER_MAPS, AffineMap, ConvMap, Scaling, make_channel_scale


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
        value, has_axes = self.value, isinstance(earlier, LAYER_MAPS)
        if isinstance(value, Tensor) and not value.is_floating_point():
            return None
        if isinstance(value, Tensor) and value.numel() == 1:
            # with more dimensions than the value it would give it more
            if value.dim() > (earlier.num_axes + 1 if has_axes and earlier.num_axes else 0):  # type: ignore[union-attr]
                return None
            value = value.item()
        elif isinstance(value, Tensor):
            num_axes = earlier.num_axes if has_axes else value.dim() - 2  # type: ignore[union-attr]
            tail = [value.numel(), *[1] * num_axes]
            if num_axes < 0 or list(value.shape) not in (tail, [1, *tail]):
                return None
            return self._make_map(value.detach().flatten().double(), num_axes)
        if self.kind == 'product':
            return Scaling(float(value))
        if not isinstance(self.value, Tensor) and value == 0:
            return Scaling(-1.0 if self.kind == 'reversed' else 1.0)
        if not isinstance(earlier, LAYER_MAPS):
            return None
        return self._make_map(earlier.weight.new_full((earlier.num_outputs,), float(value)), earlier.num_axes)

    def _make_map(self, numbers: Tensor, num_axes: int) -> ConvMap:
        ones = torch.ones_like(numbers)
        scale = {'product': numbers, 'reversed': -ones}.get(self.kind, ones)
        shift = {'product': None, 'difference': -numbers}.get(self.kind, numbers)
        return make_channel_scale(scale, shift, num_axes)


@dataclass(eq=False)
class Step:
    """One step of a graph.

    Attributes:
        name: Name for messages.
        inputs: The steps whose values it takes.
        does: The maps that it may be (several if the number of axes is not known), a constant, or the sign of the
            second operand of a sum; None if it is something else. Maps may be without numbers, if there is ``numbers``.
        numbers: Gives the maps with their numbers.
        is_conv: Whether it is a convolution, whose place a new one can take.
        is_linear: Whether it is a linear layer nevertheless, if there is a reason.
        has_numbers: Whether it is a layer with weights or statistics.
        is_call: Whether it is a call of a layer, whose place another layer can fill.
        is_reshape: Whether it only joins axes before the last one, which is all the same to maps without axes.
        asks_shape: Those of its inputs that it asks for their shape or dtype alone, and not for their values.
        order: Its place in the graph.
        written_at: The places of the steps that overwrite its value while others read it, too.
        parameters: Names of the parameters and buffers that it uses, if it is no call.
        read_in: The modules whose code reads the numbers of the layer, too, to compute a number of them.
        reason: Why it is something else, if it looks like a linear layer.
        users: The steps that take its value.
        origin: The node of PyTorch's or ONNX's graph.
    """

    name: str
    inputs: list['Step']
    does: list[AffineMap] | Constant | float | None = None
    numbers: Callable[[], list[AffineMap]] | None = None
    is_conv: bool = False
    is_linear: bool = False
    has_numbers: bool = True
    is_call: bool = False
    is_reshape: bool = False
    asks_shape: frozenset['Step'] = frozenset()
    order: int = 0
    written_at: frozenset[int] = frozenset()
    parameters: frozenset[str] = frozenset()
    read_in: frozenset[str] = frozenset()
    reason: str | None = None
    users: list['Step'] = field(default_factory=list)
    origin: Any = None

    def __post_init__(self) -> None:
        for each in dict.fromkeys(self.inputs):
            each.users.append(self)

    @property
    def is_nothing(self) -> bool:
        return self.does == [Scaling()] and not self.is_reshape

    def load(self) -> list[AffineMap] | Constant | float | None:
        """What it does, with all numbers."""
        return self.does if self.numbers is None else self.numbers()

    def describe(self, earlier: AffineMap, does: Any) -> list[AffineMap]:
        """The maps that it may be behind ``earlier``, by what it does, with or without numbers."""
        if not isinstance(does, Constant):
            return does
        described = does.describe(earlier)
        return [] if described is None else [described]

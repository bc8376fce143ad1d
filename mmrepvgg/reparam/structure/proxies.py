"""The values of a graph while code is followed."""

import dis
import operator
import sys
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import fx

_SIZES = {'shape', 'ndim', 'size', 'dim', 'numel'}


class Proxy(fx.Proxy):
    """A value of the graph. Its tracer is a :class:`~mmrepvgg.reparam.structure.tracer.Tracer`."""

    # as in inference: blocks ask for it before they save memory by computing twice
    requires_grad = False

    def __getattr__(self, name: str) -> Any:
        # code may count with the sizes of its weights
        tracer: Any = self.tracer
        value = tracer.find_constant(self.node) if name in _SIZES else None
        return super().__getattr__(name) if value is None else getattr(value, name)

    # without these Python would take the operation that makes a new value, and not the one that overwrites
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._overwrite(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._overwrite(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._overwrite(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._overwrite(operator.itruediv, other)

    def _overwrite(self, operation: Any, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy('call_function', operation, (self, other), {})

    @property
    def __class__(self) -> Any:
        """What ``isinstance`` hears. torch itself asks, too, and may know that this is no tensor."""
        asking = sys._getframe(1)
        is_for_torch = is_torch(asking) and asking.f_code.co_name != 'is_tensor'
        if is_for_torch or not _asks_for_types(asking.f_code):
            return type(self)
        if self.node.op == 'call_module':
            return torch.Tensor
        raise TypeError(f'the code asks for the type of `{self.node.name}`, which is not known')

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError('it has its class')


def is_torch(frame: Any) -> bool:
    """Whether a function of torch runs; torchvision is no part of it."""
    return frame.f_globals.get('__name__', '').partition('.')[0] == 'torch'


@cache
def _asks_for_types(code: CodeType) -> bool:
    """Whether Python code asks for the types of values. If it does not, a function in C asks, of torch for example."""
    asks = {'isinstance', 'issubclass', '__class__', '__instancecheck__'}
    return not asks.isdisjoint((code.co_name, *code.co_names)) or dis.opmap['MATCH_CLASS'] in code.co_code[::2]

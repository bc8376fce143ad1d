"""The graph of a model in eval mode, with all that is inside of its blocks, as far as Python's code can be followed."""

from collections.abc import Collection
from typing import Any

from torch import fx, nn

from .layers import is_layer


# They have no forward of their own.
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


class _Tracer(fx.Tracer):
    def __init__(self, single: Collection[nn.Module]):
        super().__init__()
        self.single = set(single)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return module in self.single or super().is_leaf_module(module, name)


def trace(model: nn.Module, closed: Collection[nn.Module] = ()) -> fx.GraphModule | Exception:
    """The graph of ``model``, in which those of ``closed`` are single nodes; or what stopped it."""
    # asked before: while a model is traced its parameters are no numbers
    tracer = _Tracer({*closed, *filter(is_layer, model.modules())})
    try:
        graph = tracer.trace(model)
    except Exception as error:  # the model's own code may raise anything when it gets no numbers
        return error
    return fx.GraphModule(tracer.root, graph)


def find_closed(model: nn.Module) -> dict[nn.Module, Exception]:
    """The modules in ``model`` whose code can't be followed, each with what stopped it."""
    closed: dict[nn.Module, Exception] = {}
    for module in _children_first(model):
        if is_layer(module) or not any(True for _ in module.children()) or isinstance(module, _CONTAINERS):
            continue
        traced = trace(module, closed)
        if isinstance(traced, Exception):
            closed[module] = traced
    return closed


def _children_first(model: nn.Module) -> list[Any]:
    return list(reversed(list(model.modules())))

"""The graph of a model in eval mode, with all that is inside of its blocks, as far as Python's code can be followed."""

import contextlib
import copy
from collections.abc import Collection, Iterator
from typing import Any

import torch
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
    with _keeping_state(model):
        try:
            graph = tracer.trace(model)
        except Exception as error:  # the model's own code may raise anything when it gets no numbers
            return error
    for node in reversed(graph.nodes):
        # an assertion about the shape of a value between two layers would keep that value
        if node.target is torch._assert:
            graph.erase_node(node)
    traced = fx.GraphModule(tracer.root, graph)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


@contextlib.contextmanager
def _keeping_state(model: nn.Module) -> Iterator[None]:
    """Undo what the model's code stores in its modules, for example in a cache: while it is traced, that is no number."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    inner = [
        (value, copy.copy(value)) for _, state in before for value in state.values() if type(value) in (dict, list)
    ]
    try:
        yield
    finally:
        for module, state in before:
            vars(module).clear()
            vars(module).update(state)
        for value, old in inner:
            value.clear()
            value.update(old) if isinstance(value, dict) else value.extend(old)


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

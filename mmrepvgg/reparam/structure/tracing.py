"""The graph of a model in eval mode, with all that is inside of its blocks, as far as Python's code can be followed."""

import contextlib
import copy
import inspect
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from .writing import remove_unused


@dataclass(frozen=True)
class Traced:
    """A module that could be followed.

    Attributes:
        graph: The graph of its code.
        is_steered: Whether its code depends on arguments that the caller may leave out. The graph is that without them.
        num_calls: How often each module within is called.
    """

    graph: fx.GraphModule
    is_steered: bool
    num_calls: Counter[nn.Module]


class _Proxy(fx.Proxy):
    # as in inference: blocks ask for it before they save memory by computing twice
    requires_grad = False


class _Tracer(fx.Tracer):
    def __init__(self, single: Collection[nn.Module]):
        super().__init__()
        self.single = set(single)
        self.called: Counter[nn.Module] = Counter()

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return module in self.single or super().is_leaf_module(module, name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.called[module] += 1
        return super().call_module(module, forward, args, kwargs)


def trace(model: nn.Module, single: Collection[nn.Module]) -> Traced | Exception:
    """Follow the code of ``model``, in which those of ``single`` are one step each; or say what stopped it."""
    defaults = _get_defaults(model)
    with keeping_state(model):
        model.eval()
        try:
            graph, num_calls = _follow(model, single, defaults)
        except Exception as error:  # the model's own code may raise anything when it gets no numbers
            return error
        if not defaults:
            return Traced(graph, False, num_calls)
        try:
            free, free_calls = _follow(model, single, {})
        except Exception:
            return Traced(graph, True, num_calls)
    if _list_operations(free) == _list_operations(graph):
        return Traced(free, False, free_calls)
    return Traced(graph, True, num_calls)


def _get_defaults(model: nn.Module) -> dict[str, Any]:
    """The arguments of ``forward`` that a caller may leave out."""
    parameters = list(inspect.signature(type(model).forward).parameters.values())[1:]
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def _follow(
    model: nn.Module, single: Collection[nn.Module], given: dict[str, Any]
) -> tuple[fx.GraphModule, Counter[nn.Module]]:
    tracer = _Tracer(single)
    graph = tracer.trace(model, given or None)
    for node in reversed(graph.nodes):
        # an assertion about the shape of a value between two layers would keep that value
        if node.target is torch._assert:
            graph.erase_node(node)
    traced = fx.GraphModule(tracer.root, graph)
    remove_unused(traced)
    traced.recompile()
    return traced, tracer.called


def _list_operations(graph: fx.GraphModule) -> list[tuple[str, str]]:
    return [(node.op, str(node.target)) for node in graph.graph.nodes if node.op != 'placeholder']


@contextlib.contextmanager
def keeping_state(model: nn.Module) -> Iterator[None]:
    """Undo what the code of a model stores in its modules, such as caches: while it is traced that is no number."""
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

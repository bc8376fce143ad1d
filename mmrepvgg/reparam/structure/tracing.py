"""The graph of a model in eval mode, with all that is inside of its blocks, as far as Python's code can be followed."""

import inspect
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from .proxies import Proxy
from .restoring import keeping_state
from .tracer import Tracer
from .writing import remove_unused


@dataclass(frozen=True)
class Traced:
    """A module that could be followed.

    Attributes:
        graph: The graph of its code.
        is_steered: Whether its code depends on arguments that the caller may leave out. The graph is that without them.
        num_calls: How often each module within is called.
        told: The modules within that are called with something else than values: None, an option, or a list of values.
        in_context: The modules, itself or within, in whose code something runs in a context, such as autocast or
            no_grad, that no graph shows.
    """

    graph: fx.GraphModule
    is_steered: bool
    num_calls: Counter[nn.Module]
    told: set[nn.Module]
    in_context: set[nn.Module]


@dataclass(frozen=True)
class Stopped:
    """Why a module could not be followed.

    Attributes:
        reason: What stopped it, in one line.
        within: The modules whose code was running, from the outermost to the innermost.
    """

    reason: str
    within: tuple[nn.Module, ...]


def trace(model: nn.Module, single: Collection[nn.Module]) -> Traced | Stopped:
    """Follow the code of ``model``, in which those of ``single`` are one step each; or say what stopped it."""
    if 'forward' in vars(model) and not isinstance(model, fx.GraphModule):
        return Stopped('it has a forward of its own, which is not that of its class', (model,))
    if any(each.kind is each.KEYWORD_ONLY for each in inspect.signature(type(model).forward).parameters.values()):
        return Stopped('its forward has arguments that must be named', (model,))
    defaults, others = _list_arguments(model)
    tracer = Tracer(single)
    try:
        traced = _follow(model, tracer, defaults)
    except Exception as error:  # the model's own code may raise anything when it gets no numbers
        return Stopped(_describe_error(error), (model, *reversed(tracer.stopped_in)))
    # the code may ask whether an argument is there, to which a trace gives one answer
    for given in ({}, *({**defaults, name: None} for name in others)) if defaults or others else ():
        try:
            free = _follow(model, Tracer(single), given)
        except Exception:
            is_same = bool(given)  # without this argument the code does not run
        else:
            known = {**defaults, **given}
            is_same = _list_operations(free.graph, known) == _list_operations(traced.graph, known)
        if not is_same:
            return replace(traced, is_steered=True)
    if not defaults:
        return traced
    return replace(free, num_calls=traced.num_calls, told=traced.told, in_context=traced.in_context)


def _describe_error(error: Exception) -> str:
    text = str(error).strip().splitlines()
    # of a text of several sentences, the first one
    return f'{type(error).__name__}: {text[0].partition(". ")[0]}' if text else type(error).__name__


def _list_arguments(model: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """The arguments of ``forward`` that a caller may leave out, and those that must be given beside the first one."""
    parameters = list(inspect.signature(type(model).forward).parameters.values())[1:]
    named = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    defaults = {each.name: each.default for each in named if each.default is not each.empty}
    return defaults, [each.name for each in named if each.default is each.empty][1:]


def _follow(model: nn.Module, tracer: Tracer, given: dict[str, Any]) -> Traced:
    """The graph of a module whose arguments ``given`` are known."""
    random = torch.random.get_rng_state()
    # where the caller has gradients off, code that takes them off would not show
    with keeping_state(model), torch.inference_mode(False), torch.enable_grad():
        graph = tracer.trace(model, given or None)
        for module in model.modules():
            if any(type(value) in (Proxy, fx.proxy.Attribute) for value in vars(module).values()):
                tracer.stopped_in = [module] if module is not model else []
                raise TypeError(f'{type(module).__name__} keeps values of a run in its attributes')
        if not torch.equal(random, torch.random.get_rng_state()):
            torch.random.set_rng_state(random)
            raise TypeError('it draws random numbers')
        return _finish(tracer, graph)


def _finish(tracer: Tracer, graph: fx.Graph) -> Traced:
    for node in reversed(graph.nodes):
        # an assertion about the shape of a value between two layers would keep that value
        if node.target is torch._assert:
            graph.erase_node(node)
    traced = fx.GraphModule(tracer.root, graph)
    remove_unused(traced)
    traced.recompile()
    return Traced(traced, False, tracer.called, tracer.told, tracer.in_context)


def _list_operations(graph: fx.GraphModule, defaults: dict[str, Any]) -> list[Any]:
    """All operations with what they take, where an argument of ``defaults`` counts as its default."""
    nodes = [node for node in graph.graph.nodes if node.op != 'placeholder']
    names: dict[Any, str] = {node: f'step {number}' for number, node in enumerate(nodes)}
    for node in graph.graph.find_nodes(op='placeholder'):
        name = str(node.target)
        names[node] = repr(defaults[name]) if name in defaults else f'input {name}'

    def describe(arguments: Any) -> str:
        described = map_aggregate(arguments, lambda each: names[each] if isinstance(each, fx.Node) else repr(each))
        return repr(described)

    return [(node.op, str(node.target), describe(node.args), describe(node.kwargs)) for node in nodes]

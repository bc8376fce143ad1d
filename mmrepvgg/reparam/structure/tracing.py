"""The graph of a model in eval mode, with all that is inside of its blocks, as far as Python's code can be followed."""

import contextlib
import dis
import inspect
import operator
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from .constants import run_node
from .restoring import keeping_state
from .writing import is_in_place, remove_unused


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


_SIZES = {'shape', 'ndim', 'size', 'dim', 'numel'}


class _Proxy(fx.Proxy):
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
        is_torch = _is_torch(asking) and asking.f_code.co_name != 'is_tensor'
        if is_torch or not _asks_for_types(asking.f_code):
            return type(self)
        if self.node.op == 'call_module':
            return torch.Tensor
        raise TypeError(f'the code asks for the type of `{self.node.name}`, which is not known')

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        raise TypeError('it has its class')


def _is_torch(frame: Any) -> bool:
    """Whether a function of torch runs; torchvision is no part of it."""
    return frame.f_globals.get('__name__', '').partition('.')[0] == 'torch'


@cache
def _asks_for_types(code: CodeType) -> bool:
    """Whether Python code asks for the types of values. If it does not, a function in C asks, of torch for example."""
    asks = {'isinstance', 'issubclass', '__class__', '__instancecheck__'}
    return not asks.isdisjoint((code.co_name, *code.co_names)) or dis.opmap['MATCH_CLASS'] in code.co_code[::2]


class _Tracer(fx.Tracer):
    # what code computes of statistics, and writes to them, is a step like others
    proxy_buffer_attributes = True

    def __init__(self, single: Collection[nn.Module]):
        super().__init__()
        self.single = set(single)
        self.called: Counter[nn.Module] = Counter()
        self.told: set[nn.Module] = set()
        self.in_context: set[nn.Module] = set()
        # the modules whose code is run now, each with the contexts around it
        self.running: list[tuple[nn.Module, Any]] = []
        self.stopped_in: list[nn.Module] = []
        self.parts: set[nn.Module] = set()
        self.numbers: dict[str, Tensor] = {}
        self.constants: dict[fx.Node, Tensor | None] = {}

    def trace(self, root: Any, *args: Any) -> fx.Graph:
        self.running = [(root, _list_contexts())]
        self.parts = {*root.modules()}
        # by itself a module gives proxies while it is traced
        self.numbers = dict(root.named_parameters(remove_duplicate=False))
        self.numbers |= dict(root.named_buffers(remove_duplicate=False))
        return super().trace(root, *args)

    def find_constant(self, node: fx.Node) -> Tensor | None:
        """The tensor that a step gives, if it is computed from parameters and buffers alone."""
        if node not in self.constants:
            found = self.numbers.get(str(node.target)) if node.op == 'get_attr' else self._compute(node)
            self.constants[node] = found if isinstance(found, Tensor) else None
        return self.constants[node]

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Whether a value counts as true. A factor that is learnt does, unless it is 0."""
        value = self.find_constant(obj.node) if obj.node.op == 'get_attr' else None
        if isinstance(value, nn.Parameter) and value.numel() == 1 and value.item():
            return True
        return super().to_bool(obj)

    def _compute(self, node: fx.Node) -> Any:
        inputs = {each: self.find_constant(each) for each in node.all_input_nodes}
        if not inputs or any(each is None for each in inputs.values()) or is_in_place(node):
            return None
        with torch.no_grad(), contextlib.suppress(Exception):  # what can't be computed now is no constant
            return run_node(node, inputs)

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return module in self.single or super().is_leaf_module(module, name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta['method'] = _find_method(sys._getframe(1))
        self._check_context()
        return node

    def _check_context(self) -> None:
        module, around = self.running[-1]
        if _list_contexts() != around:
            self.in_context.add(module)

    def call_module(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if module not in self.parts:  # the code has made it
            return forward(*args, **kwargs)
        self.called[module] += 1
        if not all(type(each) is _Proxy for each in (*args, *kwargs.values())):
            self.told.add(module)
        self._check_context()
        self.running.append((module, _list_contexts()))
        try:
            return super().call_module(module, forward, args, kwargs)
        except Exception:
            self.stopped_in.append(module)
            raise
        finally:
            self.running.pop()


def _list_contexts() -> tuple[Any, ...]:
    nesting = torch.autocast_increment_nesting() - 1  # torch has no other way to ask for it
    torch.autocast_decrement_nesting()
    return nesting, torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def _find_method(frame: Any) -> str:
    """The public method of a module that is run, or else ``'forward'``."""
    while frame is not None:
        code = frame.f_code
        if code is nn.Sequential.forward.__code__:
            return 'forward'
        if code.co_argcount and not _is_torch(frame):
            owner = frame.f_locals.get(code.co_varnames[0])
            if issubclass(type(owner), nn.Module):
                is_forward = getattr(type(owner).forward, '__code__', None) is code or code.co_name.startswith('_')
                return 'forward' if is_forward else code.co_name
        frame = frame.f_back
    return 'forward'


def trace(model: nn.Module, single: Collection[nn.Module]) -> Traced | Stopped:
    """Follow the code of ``model``, in which those of ``single`` are one step each; or say what stopped it."""
    if 'forward' in vars(model) and not isinstance(model, fx.GraphModule):
        return Stopped('it has a forward of its own, which is not that of its class', (model,))
    if any(each.kind is each.KEYWORD_ONLY for each in inspect.signature(type(model).forward).parameters.values()):
        return Stopped('its forward has arguments that must be named', (model,))
    defaults, others = _list_arguments(model)
    tracer = _Tracer(single)
    try:
        traced = _follow(model, tracer, defaults)
    except Exception as error:  # the model's own code may raise anything when it gets no numbers
        return Stopped(_describe_error(error), (model, *reversed(tracer.stopped_in)))
    # the code may ask whether an argument is there, to which a trace gives one answer
    for given in ({}, *({**defaults, name: None} for name in others)) if defaults or others else ():
        try:
            free = _follow(model, _Tracer(single), given)
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


def _follow(model: nn.Module, tracer: _Tracer, given: dict[str, Any]) -> Traced:
    """The graph of a module whose arguments ``given`` are known."""
    random = torch.random.get_rng_state()
    # where the caller has gradients off, code that takes them off would not show
    with keeping_state(model), torch.inference_mode(False), torch.enable_grad():
        graph = tracer.trace(model, given or None)
        for module in model.modules():
            if any(type(value) in (_Proxy, fx.proxy.Attribute) for value in vars(module).values()):
                tracer.stopped_in = [module] if module is not model else []
                raise TypeError(f'{type(module).__name__} keeps values of a run in its attributes')
        if not torch.equal(random, torch.random.get_rng_state()):
            torch.random.set_rng_state(random)
            raise TypeError('it draws random numbers')
        return _finish(tracer, graph)


def _finish(tracer: _Tracer, graph: fx.Graph) -> Traced:
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

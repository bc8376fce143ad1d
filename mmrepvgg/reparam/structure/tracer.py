"""Run Python code once without numbers, and note what it does."""

import contextlib
import sys
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn

from .constants import run_node
from .proxies import Proxy, is_torch
from .writing import is_in_place


class Tracer(fx.Tracer):
    """Follows the code of a module once.

    Args:
        single: The modules that are one step each.

    Attributes:
        called: How often each module was called.
        told: The modules that were called with something else than values.
        in_context: The modules in whose code something ran in a context, such as autocast or no_grad.
        stopped_in: The modules whose code was running when it stopped, from the innermost to the outermost.
    """

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
        return Proxy(node, self)

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
        if not all(type(each) is Proxy for each in (*args, *kwargs.values())):
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
        if code.co_argcount and not is_torch(frame):
            owner = frame.f_locals.get(code.co_varnames[0])
            if issubclass(type(owner), nn.Module):
                is_forward = getattr(type(owner).forward, '__code__', None) is code or code.co_name.startswith('_')
                return 'forward' if is_forward else code.co_name
        frame = frame.f_back
    return 'forward'

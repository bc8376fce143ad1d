"""Follow the code of a model as far as it can be followed, and by parts where it can't."""

from collections.abc import Collection

import torch
from torch import nn

from .layers import has_hooks, is_layer
from .passing import returns_its_input
from .tracing import Stopped, Traced, trace


def is_container(module: nn.Module) -> bool:
    """Whether a module only holds others, and has no code of its own."""
    return isinstance(module, nn.ModuleList | nn.ModuleDict) and type(module).forward is nn.Module.forward


class Follower:
    """Traces the modules of a model.

    Args:
        model: The model.
        known: Modules in it that are taken as they are.

    Attributes:
        reasons: What stopped the modules whose code can't be followed. They are one step of the code around them.
    """

    def __init__(self, model: nn.Module, known: Collection[nn.Module]):
        self.reasons: dict[nn.Module, str] = {}
        self._known = {*known}
        self._layers = {module for module in model.modules() if is_layer(module)}
        self._steps = {*self._known, *self._layers, *filter(_is_one_step, model.modules())}

    def is_block(self, module: nn.Module) -> bool:
        """Whether there is code of others in ``module`` to look at."""
        if module in self._known or module in self._layers or isinstance(module, torch.jit.ScriptModule):
            return False
        return any(True for _ in module.children())

    @property
    def single(self) -> set[nn.Module]:
        """The modules that are one step of the code around them."""
        return self._steps | self.reasons.keys()

    def follow(self, module: nn.Module) -> Traced | Stopped:
        """The graph of a module, in which those that can't be followed are one step; or what stopped it."""
        traced = trace(module, self.single)
        is_closed = False
        while isinstance(traced, Stopped):
            inner = [each for each in traced.within[1:] if each not in self.single]
            if inner:
                self._close(module, inner[-1], traced.reason)
            elif is_closed:
                return traced
            else:  # where it stopped is not known
                for child in module.children():
                    self._close_stopped(child)
                is_closed = True
            traced = trace(module, self.single)
        if traced.in_context <= self.single | {module}:
            return traced
        self._steps |= traced.in_context - {module}
        return self.follow(module)

    def _close(self, module: nn.Module, stopped: nn.Module, reason: str) -> None:
        """Take a module in ``module`` as one step, and others of its class that can't be followed, either."""
        self.reasons[stopped] = reason
        for other in module.modules():
            if type(other) is type(stopped) and other not in self.single:
                traced = trace(other, self.single)
                if isinstance(traced, Stopped):
                    self.reasons[other] = traced.reason

    def _close_stopped(self, module: nn.Module) -> None:
        """Find what can't be followed in a module, or that it can't be followed itself."""
        if module in self.single:
            return
        if is_container(module):
            for child in module.children():
                self._close_stopped(child)
        elif isinstance(traced := self.follow(module), Stopped):
            self.reasons[module] = traced.reason


def _is_one_step(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule) or has_hooks(module) or returns_its_input(module)

"""Follow the code of a model as far as it can be followed, and by parts where it can't."""

from collections.abc import Collection

import torch
from torch import nn

from .layers import has_hooks, is_layer
from .passing import returns_its_input
from .tracing import Traced, trace

# They have no forward of their own.
CONTAINERS = nn.ModuleList | nn.ModuleDict


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

    def follow(self, module: nn.Module) -> Traced | Exception:
        """The graph of a module, in which those that can't be followed are one step; or what stopped it."""
        traced = trace(module, self.single)
        if isinstance(traced, Exception):
            for child in module.children():
                self._close(child)
            traced = trace(module, self.single)
        return traced

    def _close(self, module: nn.Module) -> None:
        """Find what can't be followed in a module, or that it can't be followed itself."""
        if module in self.single:
            return
        if isinstance(module, CONTAINERS):
            for child in module.children():
                self._close(child)
        elif isinstance(traced := self.follow(module), Exception):
            self.reasons[module] = describe_error(traced)


def describe_error(error: Exception) -> str:
    """What stopped a trace, in one line."""
    text = str(error).strip().splitlines()
    return f'{type(error).__name__}: {text[0]}' if text else type(error).__name__


def _is_one_step(module: nn.Module) -> bool:
    return (
        isinstance(module, torch.jit.ScriptModule)
        or has_hooks(module)
        or uses_context(module)
        or returns_its_input(module)
    )


def uses_context(module: nn.Module) -> bool:
    """Whether the code of a module runs in a context, such as autocast, that no graph shows."""
    code = getattr(type(module).forward, '__code__', None)
    contexts = {'autocast', 'no_grad', 'enable_grad', 'set_grad_enabled', 'inference_mode'}
    return code is not None and not contexts.isdisjoint(code.co_names)

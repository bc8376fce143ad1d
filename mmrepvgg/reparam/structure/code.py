"""Give a module other code, which was traced, and leave all else: attributes, hooks, methods, ``isinstance``."""

import hashlib
import linecache
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import fx, nn


class _Quiet:
    """Keeps a registry of subclasses from hearing of a new one."""

    def __init_subclass__(cls, **_: Any) -> None:
        pass


def take_code(module: nn.Module, graph: fx.Graph) -> None:
    """Let ``module`` compute ``graph``. It stays the same object, and its class becomes a subclass of its class."""
    if isinstance(module, fx.GraphModule):  # its code is a graph already
        # its code is in its class: in a new one, so that the old one can come back
        module.__class__ = type(type(module).__name__, (type(module).__mro__[1],), {})
        module.graph = graph
        module.recompile()
        return
    code = graph.python_code('self')
    modules = {name: each.__name__ for name, each in code.globals.items() if isinstance(each, ModuleType)}
    others = {name: each for name, each in code.globals.items() if not isinstance(each, ModuleType)}
    _change_class(module, code.src, modules, others)


def drop_code(module: nn.Module) -> None:
    """Let ``module`` have no ``forward``: the code of a module around it has taken it in."""
    _change_class(module, '', {}, {})


def _change_class(module: nn.Module, *code: Any) -> None:
    base = next(each for each in type(module).__mro__ if '_is_fused_class' not in vars(each) and each is not _Quiet)
    module.__class__ = _make_class(base, *code)


def _make_class(base: type, source: str, modules: dict[str, str], others: dict[str, Any]) -> type:
    forward = _compile(base.__name__, source, modules, others) if source else nn.Module.forward
    parent: Any = base

    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        """For copies and pickles, which otherwise look for the class in its module."""
        return _make, (base, source, modules, others), *parent.__reduce_ex__(self, protocol)[2:]

    def create(self: Any, *args: Any, **kwargs: Any) -> None:
        """A new instance is one of the class as it was."""
        self.__class__ = base
        parent.__init__(self, *args, **kwargs)

    members = dict(
        __init__=create,
        forward=forward,
        __reduce_ex__=reduce,
        __module__=base.__module__,
        __qualname__=base.__qualname__,
        __doc__=base.__doc__,
        _is_fused_class=True,
    )
    return type(base.__name__, (_Quiet, base), members)


def _compile(name: str, source: str, modules: dict[str, str], others: dict[str, Any]) -> Any:
    names: dict[str, Any] = {**others, **{name: import_module(path) for name, path in modules.items()}}
    # with the source at hand tracebacks show it, and torch.jit.script reads it
    file = f'<fused {name} {hashlib.sha256(source.encode()).hexdigest()[:12]}>'
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, 'exec'), names)
    return names['forward']


def _make(*args: Any) -> Any:
    made: Any = _make_class(*args)
    return made.__new__(made)

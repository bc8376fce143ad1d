"""Give a module other code, which is traced, and leave all else as it is: attributes, hooks, methods, ``isinstance``."""

import hashlib
import linecache
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import fx, nn


def take_code(module: nn.Module, graph: fx.Graph) -> None:
    """Let ``module`` compute ``graph``. It stays the same object, and its class becomes a subclass of its class."""
    if isinstance(module, fx.GraphModule):  # its code is a graph already
        module.graph = graph
        module.recompile()
        return
    code = graph.python_code('self')
    modules = {name: each.__name__ for name, each in code.globals.items() if isinstance(each, ModuleType)}
    others = {name: each for name, each in code.globals.items() if not isinstance(each, ModuleType)}
    base = next(each for each in type(module).__mro__ if '_is_fused_class' not in vars(each))
    module.__class__ = _make_class(base, code.src, modules, others)


def _make_class(base: type, source: str, modules: dict[str, str], others: dict[str, Any]) -> type:
    names: dict[str, Any] = {**others, **{name: import_module(path) for name, path in modules.items()}}
    # with the source at hand tracebacks show it, and torch.jit.script reads it
    file = f'<fused {base.__name__} {hashlib.sha256(source.encode()).hexdigest()[:12]}>'
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, 'exec'), names)

    def reduce(self: Any, protocol: Any) -> tuple:
        """For copies and pickles, which otherwise look for the class in its module."""
        return _make, (base, source, modules, others), *base.__reduce_ex__(self, protocol)[2:]

    members = dict(
        forward=names['forward'],
        __reduce_ex__=reduce,
        __module__=base.__module__,
        __qualname__=base.__qualname__,
        __doc__=base.__doc__,
        _is_fused_class=True,
    )
    return type(base.__name__, (base,), members)


def _make(*args: Any) -> Any:
    made = _make_class(*args)
    return made.__new__(made)

"""Undo all changes of a model's parts if something fails on the way."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Within ``with restoring(model):`` parts of ``model`` may be replaced; all come back if there is an exception."""
    before = [(module, module.__class__, {**vars(module)}) for module in model.modules()]
    tables = [
        (module, {name: dict(vars(module)[name]) for name in ('_modules', '_parameters', '_buffers')})
        for module in model.modules()
    ]
    try:
        yield
    except BaseException:
        for module, kind, state in before:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(state)
        for module, parts in tables:
            for name, values in parts.items():
                table = vars(module)[name]
                table.clear()
                table.update(values)
        raise

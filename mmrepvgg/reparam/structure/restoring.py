"""Put a model back into the state in which it was."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Within ``with restoring(model):`` parts of ``model`` may be replaced; all come back if there is an exception."""
    restore = _remember(model)
    try:
        yield
    except BaseException:
        restore()
        raise


@contextmanager
def keeping_state(model: nn.Module) -> Iterator[None]:
    """Undo what the code of a model stores in its modules, such as caches: while it is traced that is no number."""
    restore = _remember(model)
    try:
        yield
    finally:
        restore()


def _remember(model: nn.Module) -> Callable[[], None]:
    """Remember the parts and attributes of all modules, and what is in their dicts and lists."""
    states = [(module, module.__class__, dict(vars(module))) for module in model.modules()]
    values = [value for _, _, state in states for value in state.values()]
    tables = [(value, copy.copy(value)) for value in values if type(value) in (dict, list, OrderedDict)]

    def restore() -> None:
        for module, kind, state in states:
            module.__class__ = kind
            vars(module).clear()
            vars(module).update(state)
        for table, content in tables:
            table.clear()
            table.update(content) if isinstance(table, dict) else table.extend(content)

    return restore

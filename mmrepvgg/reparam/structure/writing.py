"""Operations that overwrite a value, and the values that these reach, in the graph of a traced model."""

import inspect
import operator
from collections.abc import Collection
from typing import Any

from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

from .passing import returns_its_input

_IN_PLACE = {
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ipow,
    operator.ifloordiv,
    operator.imod,
    operator.iand,
    operator.ior,
    operator.ixor,
    operator.setitem,
}
# What returns the memory of its input, by the names of functions and methods.
_VIEWS = {'view', 'view_as', 'reshape', 'reshape_as', 'flatten', 'unflatten', 'squeeze', 'unsqueeze', 'transpose'}
_VIEWS |= {'permute', 'movedim', 'swapaxes', 'expand', 'expand_as', 'chunk', 'split', 'unbind', 'getitem', 'narrow'}
_VIEWS |= {'contiguous', 'detach', 'to', 'type', 'float', 'double', 'half', 't', 'dropout', 'select', 'diagonal'}
_VIEWS |= {'requires_grad_', 'type_as', 'unfold', 'tensor_split', 'alpha_dropout'}


def find_written(model: fx.GraphModule) -> dict[fx.Node, set[fx.Node]]:
    """The values that an operation overwrites while other code reads them, too, with these operations."""
    modules = dict(model.named_modules(remove_duplicate=False))
    written: dict[fx.Node, set[fx.Node]] = {}
    for node in model.graph.nodes:
        for value in list_written(node, modules):
            group = _find_group(value, node, modules)
            readers = {
                user for each in group for user in each.users if user not in group and not asks_shape(user, each)
            }
            if readers != {node}:
                for each in group:
                    written.setdefault(each, set()).add(node)
    return written


def remove_unused(model: fx.GraphModule, replaced: Collection[fx.Node] = ()) -> None:
    """Remove what gives a value that nobody reads, and does nothing else.

    Args:
        model: The graph.
        replaced: Steps in whose place another one stands, so that what they overwrite is nothing any more.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    model.graph.eliminate_dead_code(
        lambda node: node not in replaced and (node.is_impure() or bool(list_written(node, modules)))
    )


def asks_shape(node: fx.Node, value: fx.Node) -> bool:
    """Whether ``node`` asks ``value`` for its shape or dtype alone."""
    if node.op == 'call_method':
        if node.target in ('reshape_as', 'view_as', 'expand_as', 'type_as'):
            return node.args[0] is not value
        return node.target in ('size', 'dim', 'stride')
    return node.target is getattr and node.args[1] in ('shape', 'ndim', 'dtype', 'device')


def list_written(node: fx.Node, modules: dict[str, nn.Module]) -> list[fx.Node]:
    """The values that ``node`` overwrites."""
    out = node.kwargs.get('out')
    if isinstance(out, fx.Node):
        return [out]
    if node.op == 'call_module':
        parts = [part for part in modules[str(node.target)].modules() if not isinstance(part, _DropoutNd)]
        return node.all_input_nodes if any(getattr(part, 'inplace', False) is True for part in parts) else []
    if node.op not in ('call_function', 'call_method') or not node.args or not isinstance(node.args[0], fx.Node):
        return []
    return [node.args[0]] if is_in_place(node) else []


def is_in_place(node: fx.Node) -> bool:
    if node.op == 'call_method':
        return str(node.target).endswith('_') and not str(node.target).endswith('__')
    name = getattr(node.target, '__name__', '')
    if node.target in _IN_PLACE or (name.endswith('_') and not name.endswith('__')):
        return True
    if node.kwargs.get('inplace') is True:
        return True
    try:
        given: Any = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return given.get('inplace') is True


def _find_group(value: fx.Node, writer: fx.Node, modules: dict[str, nn.Module]) -> set[fx.Node]:
    """The values that may have the memory of ``value``, but for what ``writer`` gives."""
    while _is_view(value, modules) and isinstance(value.args[0], fx.Node):
        value = value.args[0]
    group, left = {value}, [value]
    while left:
        for user in left.pop().users:
            if user is not writer and user not in group and _is_view(user, modules):
                group.add(user)
                left.append(user)
    return group


def _is_view(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if not node.args:
        return False
    if node.op == 'call_module':
        layer = modules[str(node.target)]
        nothing = nn.Identity | nn.Flatten | nn.Unflatten | _DropoutNd | nn.Sequential
        return isinstance(layer, nothing) or returns_its_input(layer) or bool(list_written(node, modules))
    name = node.target if node.op == 'call_method' else getattr(node.target, '__name__', '')
    return name in _VIEWS or is_in_place(node)

"""What code does with the modules in it beside calling them, by its source."""

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import nn

from .following import is_container


def find_opened(module: nn.Module) -> set[nn.Module] | None:
    """The modules within whose parts the code of ``module`` uses by themselves, instead of calling the whole.

    ``self.block(x)`` calls the whole; ``self.block.conv(x)``, ``self.conv.stride``, ``self.blocks[0]`` and
    ``for layer in self.blocks`` do not. A ModuleList can be used in no other way; its parts count as called.

    Returns:
        The modules, or None if there is no source.
    """
    kind: Any = type(module)
    paths = _list_paths(kind)
    if paths is None:
        return None
    return {opened for path, is_whole in paths for opened in _walk(module, path, is_whole)}


# What the switch changes in a layer.
_CHANGING = {'weight', 'bias', 'stride', 'padding', 'kernel_size', 'dilation', 'groups', 'in_channels', 'out_channels'}
_CHANGING |= {'in_features', 'out_features', 'running_mean', 'running_var', 'eps', 'num_features', 'affine'}


def find_read(module: nn.Module) -> set[nn.Module]:
    """The modules within of which the code of ``module`` reads what the switch would change."""
    kind: Any = type(module)
    paths = _list_paths(kind)
    if paths is None:  # without source the compiled code tells what it reads, but not of which module
        names = getattr(getattr(kind.forward, '__code__', None), 'co_names', ())
        return set() if _CHANGING.isdisjoint(names) else {*module.modules()} - {module}
    read = set()
    for path, _ in paths:
        part: Any = module
        for name, following in itertools.pairwise((*path, '')):
            part = part._modules.get(name)
            if part is None:
                break
            if following in _CHANGING:
                read.add(part)
    return read


def adds_up(module: nn.Module) -> bool:
    """Whether the code of ``module`` adds values or subtracts them, or has no source."""
    kind: Any = type(module)
    functions = _read_functions(kind)
    if functions is None:
        return True
    nodes = [node for function in functions for node in ast.walk(function)]
    sums = {'add', 'add_', 'sub', 'sub_', 'subtract', 'sum', 'lerp', 'addcmul'}
    calls = (getattr(node.func, 'attr', getattr(node.func, 'id', '')) for node in nodes if isinstance(node, ast.Call))
    return any(map(_is_sum, nodes)) or not sums.isdisjoint(calls)


def _is_sum(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(left=one, op=ast.Add() | ast.Sub(), right=other):
            return _may_be_value(one) and _may_be_value(other)
        case ast.AugAssign(target=one, op=ast.Add() | ast.Sub(), value=other):
            return _may_be_value(one) and _may_be_value(other)
    return False


def _may_be_value(node: ast.expr) -> bool:
    """Whether something is computed, and is no number, no option of the module, and no time of day."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return False
    return any(isinstance(each, ast.Name) and each.id != 'self' for each in ast.walk(node))


@functools.lru_cache(maxsize=1000)
def _list_paths(kind: Any) -> list[tuple[tuple[str, ...], bool]] | None:
    """The names behind ``self`` in ``forward`` and the methods that it calls, and whether the last one stays whole."""
    functions = _read_functions(kind)
    return None if functions is None else [path for function in functions for path in _list_paths_in(function)]


@functools.lru_cache(maxsize=1000)
def _read_functions(kind: Any) -> list[ast.FunctionDef] | None:
    """``forward``, and the methods that it calls; None if one has no source."""
    functions: list[ast.FunctionDef] = []
    left, done = ['forward'], {'forward'}
    while left:
        try:
            function = ast.parse(textwrap.dedent(inspect.getsource(getattr(kind, left.pop())))).body[0]
        except (OSError, TypeError, SyntaxError):
            return None
        if not isinstance(function, ast.FunctionDef) or not function.args.args:
            return None
        functions.append(function)
        names = {path[0] for path, _ in _list_paths_in(function)} - done
        called = [name for name in names if inspect.isfunction(inspect.getattr_static(kind, name, None))]
        left += called
        done |= {*called}
    return functions


def _list_paths_in(function: ast.FunctionDef) -> Iterator[tuple[tuple[str, ...], bool]]:
    own = function.args.args[0].arg
    inner = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    opened = {id(node) for node in _list_opened(function)}
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and id(node) not in inner and (path := _read_path(node, own)):
            yield path, id(node) not in opened


# What goes through the parts of what it is given.
_ITERATING = {'enumerate', 'zip', 'reversed', 'list', 'tuple', 'iter', 'len', 'checkpoint_seq', 'checkpoint_sequential'}


def _list_opened(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose parts are used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            yield node.iter
        elif isinstance(node, ast.Subscript | ast.Starred):
            yield node.value
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', getattr(node.func, 'attr', '')) in _ITERATING:
            yield from node.args


def _read_path(node: ast.expr, own: str) -> tuple[str, ...]:
    """The names behind that of the module itself; empty if the expression begins otherwise."""
    if not isinstance(node, ast.Attribute):
        return ()
    if isinstance(node.value, ast.Name):
        return (node.attr,) if node.value.id == own else ()
    before = _read_path(node.value, own)
    return (*before, node.attr) if before else ()


def _walk(module: nn.Module, path: tuple[str, ...], is_whole: bool) -> Iterator[nn.Module]:
    """The modules on a path whose parts are used."""
    for number, name in enumerate(path, 1):
        child = module._modules.get(name)
        if child is None:
            return
        if not (is_whole and number == len(path)) and not is_container(child):
            yield child
        module = child

"""How many dimensions the values of a traced model have, as far as its code tells."""

from operator import add, floordiv, getitem, mul, sub
from typing import Any

import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import BatchNorm2d, BatchNorm3d

# Layers that return as many dimensions as they get.
_KEEPING = (
    nn.Linear,
    nn.Dropout,
    nn.Identity,
    nn.LayerNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.conv._ConvNd,
    activation.ReLU,
    activation.ReLU6,
    activation.GELU,
    activation.SiLU,
    activation.Hardswish,
    activation.Hardsigmoid,
    activation.Sigmoid,
    activation.Softmax,
)
# Operations that do so, too, by the names of functions and methods.
_KEEPING_NAMES = {'relu', 'gelu', 'silu', 'hardswish', 'sigmoid', 'softmax', 'dropout', 'transpose', 'permute'}
_KEEPING_NAMES |= {'contiguous', 'clone', 'layer_norm'}
_JOINING_NAMES = {'add', 'sub', 'mul', 'iadd', 'isub', 'imul', 'truediv', 'add_', 'mul_', 'sub_'}


def find_ranks(model: fx.GraphModule) -> dict[fx.Node, int]:
    """The number of dimensions of each value that the code tells: BatchNorm2d, for example, takes 4 and no other."""
    modules = dict(model.named_modules(remove_duplicate=False))
    ranks: dict[fx.Node, int] = {}
    for node in model.graph.nodes:
        try:
            rank = _find(node, modules, ranks)
        except (IndexError, TypeError):  # given by other names
            rank = None
        if rank is not None:
            ranks[node] = rank
    return ranks


def _find(node: fx.Node, modules: dict[str, nn.Module], ranks: dict[fx.Node, int]) -> int | None:
    given = ranks.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
    if node.op == 'call_module':
        layer = modules[str(node.target)]
        if isinstance(layer, BatchNorm2d | BatchNorm3d):
            return 4 if isinstance(layer, BatchNorm2d) else 5
        if isinstance(layer, nn.Flatten):
            return _flatten(given, layer.start_dim, layer.end_dim)
        return given if isinstance(layer, _KEEPING) else None
    if node.op not in ('call_function', 'call_method'):
        return None
    name = node.target if isinstance(node.target, str) else getattr(node.target, '__name__', '')
    if name == 'flatten':
        return _flatten(given, *node.args[1:], **node.kwargs)
    if name in ('view', 'reshape'):
        shape: Any = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
        return len(shape) if all(isinstance(each, int) or _is_size(each) for each in shape) else None
    if name in ('reshape_as', 'view_as'):
        return ranks.get(node.args[1])  # type: ignore[arg-type]
    if name == 'mean' and given is not None:
        return _mean(given, *node.args[1:], **node.kwargs)
    if name in _JOINING_NAMES:
        known = [ranks.get(each) for each in node.all_input_nodes]
        return None if None in known else max(rank for rank in known if rank is not None)
    if name in _KEEPING_NAMES or node.target is F.relu:
        return given
    return None


def _is_size(value: Any) -> bool:
    """Whether a value is the length of one axis."""
    if not isinstance(value, fx.Node):
        return False
    is_item = value.target is getitem and isinstance(value.args[1], int)
    return is_item or (value.target == 'size' and len(value.args) == 2) or value.target in (mul, floordiv, sub, add)


def _flatten(rank: int | None, start_dim: Any = 0, end_dim: Any = -1) -> int | None:
    if (start_dim, end_dim) == (1, -1):
        return 2
    if rank is None or not isinstance(start_dim, int) or not isinstance(end_dim, int):
        return None
    return rank - (end_dim % rank - start_dim % rank)


def _mean(rank: int, dim: Any = None, keepdim: Any = False, **_: Any) -> int | None:
    if not isinstance(dim, int | tuple | list) or keepdim is not False:
        return rank if keepdim is True else None
    return rank - (1 if isinstance(dim, int) else len(dim))

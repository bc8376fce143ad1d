"""Find what in a graph one convolution computes: chains of layers, and parallel paths from one tensor to one sum."""

import contextlib
import inspect
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .layers import describe
from .maps import AffineMap, ConvMap, InexactError, Scaling, add, chain, make_channel_scale

_SUMS = {operator.add, operator.iadd, torch.add}
_DIFFERENCES = {operator.sub, operator.isub, torch.sub}
_PRODUCTS = {operator.mul, operator.imul, torch.mul}
_SUM_METHODS, _DIFFERENCE_METHODS, _PRODUCT_METHODS = {'add', 'add_'}, {'sub', 'sub_'}, {'mul', 'mul_'}
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


@dataclass(frozen=True, eq=False)
class Path:
    """A value as a map of an earlier value.

    Attributes:
        source: The node of the earlier value.
        map: The map.
        members: The nodes that the map stands for.
        num_weights: Number of weights of the layers among them.
    """

    source: fx.Node
    map: AffineMap
    members: frozenset[fx.Node] = frozenset()
    num_weights: int = 0

    @property
    def is_no_larger(self) -> bool:
        return not isinstance(self.map, ConvMap) or self.map.num_weights <= self.num_weights


@dataclass
class Findings:
    """What was found in a graph.

    Attributes:
        patterns: For each node that one convolution can compute, the path.
        reasons: For each node at which something linear can't go on, why.
    """

    patterns: dict[fx.Node, Path] = field(default_factory=dict)
    reasons: dict[fx.Node, str] = field(default_factory=dict)


def search(graph: fx.GraphModule) -> Findings:
    """Find the patterns of a graph, the largest ones."""
    searcher = _Searcher(graph)
    for node in graph.graph.nodes:
        searcher.visit(node)
    return searcher.choose()


class _Searcher:
    def __init__(self, graph: fx.GraphModule):
        self.graph = graph
        self.modules = dict(graph.named_modules(remove_duplicate=False))
        self.paths: dict[fx.Node, list[Path]] = {}
        self.constants: dict[fx.Node, Any] = {}
        self.findings = Findings()
        self.calls: dict[nn.Module, int] = {}
        for node in graph.graph.nodes:
            if node.op == 'call_module':
                module = self.modules[node.target]
                self.calls[module] = self.calls.get(module, 0) + 1

    def visit(self, node: fx.Node) -> None:
        own = Path(node, Scaling())
        found: list[Path] = []
        if node.op == 'get_attr':
            self.constants[node] = _get(self.graph, str(node.target))
        elif node.op == 'call_module':
            found = list(self._visit_layer(node))
        elif node.op in ('call_function', 'call_method'):
            found = list(self._visit_operation(node))
        # the longest paths first
        self.paths[node] = [*sorted(found, key=lambda path: -len(path.members)), own]

    def _visit_layer(self, node: fx.Node) -> Iterator[Path]:
        module = self.modules[node.target]
        try:
            described = describe(module)
        except InexactError as error:
            self.findings.reasons[node] = str(error)
            return
        if described is None or len(node.args) != 1 or not isinstance(node.args[0], fx.Node) or node.kwargs:
            return
        if self.calls[module] > 1 and isinstance(described, ConvMap):
            self.findings.reasons[node] = 'the layer is called several times'
            return
        yield from self._extend(node, node.args[0], described)

    def _extend(self, node: fx.Node, earlier: fx.Node, described: AffineMap) -> Iterator[Path]:
        own = described.num_weights if isinstance(described, ConvMap) else 0
        for path in self.paths[earlier]:
            if isinstance(path.map, ConvMap) and isinstance(described, ConvMap) and path.map.num_axes != described.num_axes:
                continue
            try:
                joined = chain(path.map, described)
            except InexactError as error:
                self.findings.reasons.setdefault(node, str(error))
                continue
            yield Path(path.source, joined, path.members | {node}, path.num_weights + own)

    def _visit_operation(self, node: fx.Node) -> Iterator[Path]:
        if node.target is F.batch_norm:
            yield from self._visit_batch_norm(node)
            return
        operands = list(node.args)
        if node.kwargs or not operands:
            return
        if node.all_input_nodes and all(each in self.constants for each in node.all_input_nodes):
            self._compute_constant(node)
            return
        kind = _name_operation(node)
        if kind is None or len(operands) != 2 or self._changes_others(node):
            return
        one, other = (self.constants.get(each, each) if isinstance(each, fx.Node) else each for each in operands)
        if isinstance(one, fx.Node) and isinstance(other, fx.Node):
            if kind in ('sum', 'difference'):
                yield from self._join(node, one, other, 1.0 if kind == 'sum' else -1.0)
        elif isinstance(one, fx.Node):
            yield from self._join_constant(node, one, other, kind)
        elif kind == 'difference':  # constant - x
            yield from self._join_constant(node, other, one, 'reversed')
        elif isinstance(other, fx.Node):
            yield from self._join_constant(node, other, one, kind)

    def _visit_batch_norm(self, node: fx.Node) -> Iterator[Path]:
        """A norm that a layer of another kind computes, such as one with an activation in it."""
        given = inspect.signature(F.batch_norm).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        x, *tensors = (given.arguments[name] for name in ('input', 'running_mean', 'running_var', 'weight', 'bias'))
        mean, var, weight, bias = (self.constants.get(each, each) for each in tensors)
        if given.arguments['training'] or not isinstance(mean, Tensor) or not isinstance(var, Tensor):
            return
        factor = (var.double() + given.arguments['eps']).rsqrt()
        factor = factor if weight is None else factor * weight.detach().double()
        shift = -mean.double() * factor
        shift = shift if bias is None else shift + bias.detach().double()
        for axes in (1, 2, 3):
            yield from self._extend(node, x, make_channel_scale(factor, shift, axes))

    def _changes_others(self, node: fx.Node) -> bool:
        """Whether the operation is in place on a value that is used elsewhere."""
        return _is_in_place(node) and isinstance(node.args[0], fx.Node) and any(u > node for u in node.args[0].users)

    def _compute_constant(self, node: fx.Node) -> None:
        if _is_in_place(node):
            return
        values: Any = fx.map_arg(node.args, lambda each: self.constants[each])
        target: Any = getattr(values[0], str(node.target)) if node.op == 'call_method' else node.target
        with torch.no_grad(), contextlib.suppress(Exception):  # what can't be computed now is no constant
            self.constants[node] = target(*(values[1:] if node.op == 'call_method' else values))

    def _join(self, node: fx.Node, one: fx.Node, other: fx.Node, sign: float) -> Iterator[Path]:
        for first in self.paths[one]:
            for second in self.paths[other]:
                if first.source is not second.source:
                    continue
                try:
                    joined = add(first.map, chain(second.map, Scaling(sign)))
                except InexactError as error:
                    if first.members or second.members:
                        self.findings.reasons.setdefault(node, str(error))
                    continue
                members = first.members | second.members | {node}
                weights = first.num_weights + second.num_weights
                yield Path(first.source, joined, members, weights)

    def _join_constant(self, node: fx.Node, earlier: fx.Node, value: Any, kind: str) -> Iterator[Path]:
        for path in self.paths[earlier]:
            described = _describe_constant(path.map, value, kind)
            if described is None:
                continue
            try:
                joined = chain(path.map, described)
            except InexactError as error:
                self.findings.reasons.setdefault(node, str(error))
                continue
            yield Path(path.source, joined, path.members | {node}, path.num_weights)

    def choose(self) -> Findings:
        """Keep, of all paths, those whose values are needed, from the outputs backwards."""
        needed = [node for node in self.graph.graph.nodes if node.op == 'output']
        seen = set(needed)
        while needed:
            node = needed.pop()
            path = self._choose_path(node)
            if path is None:
                inputs = list(node.all_input_nodes)
            else:
                self.findings.patterns[node] = path
                inputs = [path.source]
            for each in inputs:
                if each not in seen:
                    seen.add(each)
                    needed.append(each)
        return self.findings

    def _choose_path(self, node: fx.Node) -> Path | None:
        gains = [self._trim(each) for each in self.paths[node] if self._is_gain(node, each)]
        # a norm goes to the convolution before it rather than to the one behind it
        first = (each for each in gains if not (len(each.source.users) == 1 and self._is_conv(each.source)))
        return next(first, gains[0] if gains else None)

    def _trim(self, path: Path) -> Path:
        """The path without the layers at its beginning that do nothing."""
        while True:
            readers = [each for each in path.source.users if each in path.members]
            if len(readers) != 1 or not self._is_nothing(readers[0]):
                return path
            path = replace(path, source=readers[0], members=path.members - {readers[0]})

    def _is_gain(self, node: fx.Node, path: Path) -> bool:
        if not isinstance(path.map, ConvMap) or not path.is_no_larger or self._is_nothing(node):
            return False
        if not any(map(self._is_conv, path.members)):
            return False
        layers = [each for each in path.members if not self._is_nothing(each)]
        inner_users = (user for each in path.members if each is not node for user in each.users)
        return len(layers) > 1 and all(user in path.members for user in inner_users)

    def _is_conv(self, node: fx.Node) -> bool:
        kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
        return node.op == 'call_module' and isinstance(self.modules[str(node.target)], kinds)

    def _is_nothing(self, node: fx.Node) -> bool:
        return node.op == 'call_module' and describe(self.modules[node.target]) == Scaling()


def _is_in_place(node: fx.Node) -> bool:
    if node.op == 'call_method':
        return str(node.target).endswith('_')
    return node.target in _IN_PLACE or getattr(node.target, '__name__', '').endswith('_')


def _name_operation(node: fx.Node) -> str | None:
    names = (('sum', _SUMS, _SUM_METHODS), ('difference', _DIFFERENCES, _DIFFERENCE_METHODS))
    names += (('product', _PRODUCTS, _PRODUCT_METHODS),)
    for name, functions, methods in names:
        if node.target in (functions if node.op == 'call_function' else methods):
            return name
    return None


def _describe_constant(map_: AffineMap, value: Any, kind: str) -> AffineMap | None:
    """``x + value``, ``x - value``, ``value - x`` or ``x * value`` as a map, or None if it is none."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float):
        if kind == 'product':
            return Scaling(float(value))
        if value == 0:
            return Scaling(-1.0 if kind == 'reversed' else 1.0)
        if not isinstance(map_, ConvMap):
            return None
        value = torch.full((len(map_.weight),), float(value), dtype=torch.float64)
    elif not isinstance(value, Tensor):
        return None
    else:
        axes = map_.num_axes if isinstance(map_, ConvMap) else value.dim() - 2
        shape = list(value.shape)
        if axes < 1 or shape not in ([1, value.numel(), *[1] * axes], [value.numel(), *[1] * axes]):
            return None
        value = value.detach().flatten().double()
    axes = map_.num_axes if isinstance(map_, ConvMap) else axes
    ones = torch.ones_like(value)
    if kind == 'product':
        return make_channel_scale(value, torch.zeros_like(value), axes)
    return {
        'sum': lambda: make_channel_scale(ones, value, axes),
        'difference': lambda: make_channel_scale(ones, -value, axes),
        'reversed': lambda: make_channel_scale(-ones, value, axes),
    }[kind]()


def _get(root: nn.Module, target: str) -> Any:
    value: Any = root
    for name in target.split('.'):
        value = getattr(value, name)
    return value

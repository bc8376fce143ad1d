"""Read the steps of a traced model."""

import contextlib
import inspect
import operator
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .layers import describe
from .maps import AffineMap, ConvMap, InexactError, make_channel_scale
from .steps import Constant, Step

_KINDS = {
    'sum': {operator.add, operator.iadd, torch.add, 'add', 'add_'},
    'difference': {operator.sub, operator.isub, torch.sub, 'sub', 'sub_'},
    'product': {operator.mul, operator.imul, torch.mul, 'mul', 'mul_'},
}
_IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


def read_steps(model: fx.GraphModule) -> list[Step]:
    """The steps of a graph, in its order. Constants are no steps."""
    reader = _Reader(model)
    for node in model.graph.nodes:
        reader.read(node)
    return list(reader.steps.values())


class _Reader:
    def __init__(self, model: fx.GraphModule):
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        calls = (node.target for node in model.graph.nodes if node.op == 'call_module')
        self.num_calls = Counter(id(self.modules[target]) for target in calls)
        self.steps: dict[fx.Node, Step] = {}
        self.constants: dict[fx.Node, Any] = {}

    def read(self, node: fx.Node) -> None:
        if node.op == 'get_attr':
            self.constants[node] = operator.attrgetter(str(node.target))(self.model)
        elif node.all_input_nodes and all(each in self.constants for each in node.all_input_nodes):
            self._compute_constant(node)
        if node in self.constants:
            return
        inputs = [self.steps[each] for each in node.all_input_nodes if each in self.steps]
        step = Step(str(node.target), inputs, origin=node)
        self.steps[node] = step
        if node.op == 'call_module':
            self._read_layer(node, step)
        elif node.target is F.batch_norm:
            step.does = self._read_batch_norm(node)
        elif node.op in ('call_function', 'call_method') and not _changes_others(node):
            self._read_operation(node, step)

    def _compute_constant(self, node: fx.Node) -> None:
        if _is_in_place(node):
            return
        values: Any = fx.map_arg(node.args, lambda each: self.constants[each])
        keywords: Any = fx.map_arg(node.kwargs, lambda each: self.constants[each])
        target: Any = getattr(values[0], str(node.target)) if node.op == 'call_method' else node.target
        with torch.no_grad(), contextlib.suppress(Exception):  # what can't be computed now is no constant
            self.constants[node] = target(*(values[1:] if node.op == 'call_method' else values), **keywords)

    def _read_layer(self, node: fx.Node, step: Step) -> None:
        layer = self.modules[str(node.target)]
        try:
            described = describe(layer)
        except InexactError as error:
            step.reason = str(error)
            return
        if described is None or len(node.args) != 1 or node.kwargs or len(step.inputs) != 1:
            return
        if self.num_calls[id(layer)] > 1 and isinstance(described, ConvMap):
            step.reason = 'the layer is called several times'
            return
        step.does = [described]
        step.is_conv = isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)

    def _read_batch_norm(self, node: fx.Node) -> list[AffineMap] | None:
        """A norm that a layer of another kind computes, such as one with an activation in it."""
        given = inspect.signature(F.batch_norm).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        names = ('running_mean', 'running_var', 'weight', 'bias')
        mean, var, weight, bias = (self._get_value(given.arguments[name]) for name in names)
        if given.arguments['training'] or not isinstance(mean, Tensor) or not isinstance(var, Tensor):
            return None
        factor = (var.double() + given.arguments['eps']).rsqrt()
        factor = factor if weight is None else factor * weight.detach().double()
        shift = -mean.double() * factor
        shift = shift if bias is None else shift + bias.detach().double()
        return [make_channel_scale(factor, shift, num_axes) for num_axes in (1, 2, 3)]

    def _read_operation(self, node: fx.Node, step: Step) -> None:
        kind = next((name for name, targets in _KINDS.items() if node.target in targets), None)
        if kind is None or node.kwargs or len(node.args) != 2:
            return
        one, other = map(self._get_value, node.args)
        if isinstance(one, fx.Node) and isinstance(other, fx.Node):
            if kind != 'product':
                step.inputs, step.does = [self.steps[one], self.steps[other]], 1.0 if kind == 'sum' else -1.0
        elif isinstance(one, fx.Node) and isinstance(other, Tensor | float | int):
            step.does = Constant(other, kind)
        elif isinstance(other, fx.Node) and isinstance(one, Tensor | float | int):
            step.does = Constant(one, 'reversed' if kind == 'difference' else kind)

    def _get_value(self, argument: Any) -> Any:
        return self.constants.get(argument, argument) if isinstance(argument, fx.Node) else argument


def _changes_others(node: fx.Node) -> bool:
    """Whether the operation is in place on a value that is used later."""
    return _is_in_place(node) and isinstance(node.args[0], fx.Node) and any(each > node for each in node.args[0].users)


def _is_in_place(node: fx.Node) -> bool:
    if node.op == 'call_method':
        return str(node.target).endswith('_')
    return node.target in _IN_PLACE or getattr(node.target, '__name__', '').endswith('_')

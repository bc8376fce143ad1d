"""Read the steps of a traced model."""

import inspect
import operator
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .algebra import InexactError
from .constants import compute_constants
from .layers import FUSED_LAYERS, UnknownLayerError, describe, has_hooks, make_conv
from .maps import LAYER_MAPS, AffineMap, Scaling, make_channel_scale, to_meta
from .passing import returns_its_input
from .ranks import find_ranks
from .scopes import find_scope
from .steps import Constant, Step
from .writing import asks_shape, find_written, is_in_place

READ_ELSEWHERE = 'the weights of the layer are read by other code, too'

_KINDS = {
    'sum': {operator.add, operator.iadd, torch.add, 'add', 'add_'},
    'difference': {operator.sub, operator.isub, torch.sub, 'sub', 'sub_'},
    'product': {operator.mul, operator.imul, torch.mul, 'mul', 'mul_'},
}


def read_steps(model: fx.GraphModule, flat: Collection[str] = (), outside: Collection[nn.Module] = ()) -> list[Step]:
    """The steps of a graph, in its order. Constants are no steps.

    Args:
        model: The graph.
        flat: Names of layers whose inputs are known to be ``(N, C)``.
        outside: Layers that stand in other code, too.
    """
    reader = _Reader(model, flat, outside)
    for node in model.graph.nodes:
        reader.read(node)
    orders = {node: order for order, node in enumerate(model.graph.nodes)}
    for node, step in reader.steps.items():
        step.order = orders[node]
    for node, writers in find_written(model).items():
        if node in reader.steps:
            reader.steps[node].written_at = frozenset(orders[each] for each in writers)
    return list(reader.steps.values())


class _Reader:
    def __init__(self, model: fx.GraphModule, flat: Collection[str], outside: Collection[nn.Module]):
        self.model, self.outside = model, outside
        self.flat_layers = {id(model.get_submodule(name)) for name in flat}
        self.modules = dict(model.named_modules(remove_duplicate=False))
        calls = (node.target for node in model.graph.nodes if node.op == 'call_module')
        self.num_calls = Counter(id(self.modules[str(target)]) for target in calls)
        self.num_owners = Counter(
            id(each)
            for module in {*self.modules.values()}
            for each in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        )
        self.steps: dict[fx.Node, Step] = {}
        self.constants = compute_constants(model)
        # the code that reads each parameter or buffer only to compute a number, or None if it does more with it
        self.readers: dict[int, set[str] | None] = {}
        self._find_readers()
        self.ranks = find_ranks(model)

    def _find_readers(self) -> None:
        names = {node: str(node.target) for node in self.model.graph.find_nodes(op='get_attr')}
        numbers = {name: id(self.constants.values[node]) for node, name in names.items()}
        for node, name in names.items():
            readers = self.readers.setdefault(numbers[name], set())
            if readers is not None:
                readers |= {find_scope(user) for user in node.users}
        for node in self.constants.list_final():
            if not self.constants.is_number(node):
                self.readers |= dict.fromkeys(numbers[name] for name in self.constants.origins[node])

    def read(self, node: fx.Node) -> None:
        if node in self.constants.values:
            return
        names = self.constants.origins[node]
        inputs = [self.steps[each] for each in node.all_input_nodes if each in self.steps]
        step = Step(str(node.target), inputs, parameters=names, origin=node)
        step.asks_shape = frozenset(each for each in inputs if asks_shape(node, each.origin))
        self.steps[node] = step
        step.is_call = node.op == 'call_module'
        if step.is_call:
            self._read_layer(node, step)
        elif self._keeps_channels_last(node):
            step.does, step.is_reshape = [Scaling()], True
        elif node.target is F.batch_norm:
            described = self._read_batch_norm(node)
            step.does, step.numbers = list(map(to_meta, described)) or None, lambda: self._read_batch_norm(node)
        elif node.target in (F.conv1d, F.conv2d, F.conv3d):
            described = self._read_conv(node)
            step.does, step.numbers = list(map(to_meta, described)) or None, lambda: self._read_conv(node)
            step.is_conv = bool(described)
        elif node.op in ('call_function', 'call_method'):
            self._read_operation(node, step)

    def _read_layer(self, node: fx.Node, step: Step) -> None:
        layer = self.modules[str(node.target)]
        step.has_numbers = bool(layer.state_dict())
        if len(node.args) != 1 or node.kwargs or len(step.inputs) != 1:
            return
        try:
            described = self._describe(layer, step, numbers=False)
        except InexactError as error:
            step.reason, step.is_linear = str(error), not isinstance(error, UnknownLayerError)
            return
        if not described:
            return
        step.is_conv = isinstance(layer, FUSED_LAYERS)
        step.read_in = frozenset[str]().union(
            *(self.readers.get(id(each)) or () for each in (*layer.parameters(), *layer.buffers()))
        )
        step.reason = self._find_obstacle(layer) if isinstance(described[0], LAYER_MAPS) else None
        step.is_linear = step.reason is not None
        if step.reason is None:
            step.does, step.numbers = list(map(to_meta, described)), lambda: self._describe(layer, step)

    def _get_rank(self, step: Step) -> int | None:
        return self.ranks.get(step.origin)

    def _keeps_channels_last(self, node: fx.Node) -> bool:
        """Whether axes before the last one are joined, which is all the same to a linear layer."""
        if node.target not in (torch.flatten, 'flatten') or node.kwargs or len(node.args) != 3:
            return False
        rank, end = self.ranks.get(node.args[0]), node.args[2]  # type: ignore[arg-type]
        return rank is not None and isinstance(end, int) and end % rank < rank - 1

    def _describe(self, layer: nn.Module, step: Step, numbers: bool = True) -> list[AffineMap]:
        if returns_its_input(layer):
            return [Scaling()]
        is_flat = isinstance(layer, nn.Linear) or self._get_rank(step.inputs[0]) == 2 or id(layer) in self.flat_layers
        return [each for each in describe(layer, numbers) if is_flat or not _is_without_axes(each)]

    def _find_obstacle(self, layer: nn.Module) -> str | None:
        """Why a layer must stay as it is, whatever it computes."""
        if self.num_calls[id(layer)] > 1:
            return 'the layer is called several times'
        if layer in self.outside:
            return 'the layer stands in other code, too'
        if any(map(has_hooks, layer.modules())):
            return 'the layer has a hook, which sees or changes its values'
        numbers = [*layer.parameters(), *layer.buffers()]
        if any(self.num_owners[id(each)] > 1 for each in numbers):
            return 'the layer shares its weights with another one'
        if any(self.readers.get(id(each), set()) is None for each in numbers):
            return READ_ELSEWHERE
        return None

    def _read_batch_norm(self, node: fx.Node) -> list[AffineMap]:
        """A norm that a layer of another kind computes, such as one with an activation in it."""
        given = inspect.signature(F.batch_norm).bind(*node.args, **node.kwargs)
        given.apply_defaults()
        names = ('running_mean', 'running_var', 'weight', 'bias')
        mean, var, weight, bias = (self._get_value(given.arguments[name]) for name in names)
        if given.arguments['training'] or not all(isinstance(each, Tensor) for each in (mean, var)):
            return []
        if not all(each is None or isinstance(each, Tensor) for each in (weight, bias)):
            return []
        factor = (var.double() + given.arguments['eps']).rsqrt()
        factor = factor if weight is None else factor * weight.detach().double()
        shift = -mean.double() * factor
        shift = shift if bias is None else shift + bias.detach().double()
        return [make_channel_scale(factor, shift, num_axes) for num_axes in (1, 2, 3)]

    def _read_conv(self, node: fx.Node) -> list[AffineMap]:
        """A convolution whose kernel the code computes of its numbers."""
        names = ('input', 'weight', 'bias', 'stride', 'padding', 'dilation', 'groups')
        arguments = {'bias': None, **dict(zip(names, node.args, strict=False)), **node.kwargs}
        given: dict[str, Any] = {name: self._get_value(each) for name, each in arguments.items() if name != 'input'}
        weight, bias = given.pop('weight', None), given.pop('bias')
        if not isinstance(weight, Tensor) or not (bias is None or isinstance(bias, Tensor)):
            return []
        if any(isinstance(each, fx.Node) for each in given.values()):
            return []
        bias = None if bias is None else bias.detach().double()
        return [make_conv(weight.detach().double(), bias, **given)]

    def _read_operation(self, node: fx.Node, step: Step) -> None:
        if is_in_place(node) and node.args[0] not in self.steps:
            return  # it writes to a buffer
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
        return self.constants.values.get(argument, argument) if isinstance(argument, fx.Node) else argument


def _is_without_axes(one: AffineMap) -> bool:
    return isinstance(one, LAYER_MAPS) and one.num_axes == 0

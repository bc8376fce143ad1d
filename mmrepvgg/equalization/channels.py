"""The channels of a network that can be rescaled exactly, found in the graph that ``torch.export`` traces."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from ..models.forms import name_layer

aten = torch.ops.aten

_LAYERS = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.linear.default,
}
# Homogeneous functions of each channel of (N, C, ...), as far as they keep N and C.
_HOMOGENEOUS = {
    aten.relu.default,
    aten.leaky_relu.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten.mean.dim,
    aten.slice.Tensor,
    aten.clone.default,
    aten.contiguous.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.squeeze.dims,
    aten.unsqueeze.default,
}
_PRODUCTS = {aten.mul.Tensor, aten.div.Tensor}
_SUMS = {aten.add.Tensor, aten.sub.Tensor}


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer.

    Attributes:
        path: Path of the layer in the model.
        module: The layer.
        groups: Number of groups of the convolution.
        source: Channels of its input, an index into ``Channels.sizes``. None if they keep their scale.
        target: Channels of its output, likewise.
    """

    path: str
    module: Any
    groups: int
    source: int | None
    target: int | None

    @property
    def name(self) -> str:
        """Name of its block, or of the layer itself."""
        return name_layer(self.path)


@dataclass(frozen=True)
class Channels:
    """What can be rescaled.

    Attributes:
        layers: All convolutions and linear layers, in the order of computation.
        sizes: Number of channels of each tensor that can be rescaled. Tensors that are added count as one.
        left_alone: Reason why the output of a layer keeps its scale, by the name of the layer.
    """

    layers: tuple[Layer, ...]
    sizes: tuple[int, ...]
    left_alone: Mapping[str, str]


def find_channels(model: nn.Module, inputs: Tensor) -> Channels:
    """Find the channels that can be rescaled without a change of the function.

    The rows of the layer that makes a channel are divided by a number, and the columns of all layers that read it are
    multiplied by it. This is exact if only homogeneous functions are between them, such as ReLU and pooling. A product
    with a gate is homogeneous as well, so squeeze-and-excitation takes part: its squeezing layer is one of the readers.

    Args:
        model: Network in eval mode.
        inputs: An example ``(N, C, H, W)``.

    Raises:
        ValueError: If the model can't be traced.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the tracer about itself
            program = torch.export.export(model, (inputs,), strict=False).run_decompositions({})
    except Exception as error:  # the tracer raises errors of many kinds
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f'{type(model).__name__} can not be traced by torch.export: {reason}') from error
    names = dict(program.graph_signature.inputs_to_parameters)
    walk = _Walk(model, names)
    for node in program.graph.nodes:
        walk.visit(node)
    return walk.finish()


@dataclass
class _Walk:
    """A pass over the graph. Each tensor of channels that can still be rescaled has a number."""

    model: nn.Module
    parameters: Mapping[str, str]
    numbers: dict[Node, int] = field(default_factory=dict)
    layers: list[tuple[str, nn.Module, int, int | None, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def visit(self, node: Any) -> None:
        if node.op == 'output':
            self._stop(node, 'the model returns it')
        elif node.op == 'call_function':
            if node.target in _LAYERS:
                self._add_layer(node)
            elif node.target in _PRODUCTS:
                self._multiply(node)
            elif node.target in _SUMS:
                self._add(node)
            elif _is_homogeneous(node):
                self._pass_on(node, node.args[0])
            else:
                self._stop(node, _describe(node))

    def finish(self) -> Channels:
        roots = {self._find(number) for number in range(len(self.sizes))}
        read = {self._find(source) for *_, source, _ in self.layers if source is not None}
        free = sorted(root for root in roots if root in read and root not in self.reasons)
        indices = {root: index for index, root in enumerate(free)}

        def get_index(number: int | None) -> int | None:
            return None if number is None else indices.get(self._find(number))

        return Channels(
            tuple(
                Layer(path, module, groups, get_index(source), get_index(target))
                for path, module, groups, source, target in self.layers
            ),
            tuple(self.sizes[root] for root in free),
            {
                name_layer(path): self.reasons.get(self._find(target), 'no layer reads it')
                for path, _, _, _, target in self.layers
                if get_index(target) is None
            },
        )

    def _add_layer(self, node: Any) -> None:
        x, weight, *rest = node.args
        bias = rest[0] if rest else None
        path, _, entry = self.parameters.get(str(weight), '').rpartition('.')
        module: Any = self.model.get_submodule(path) if entry == 'weight' else None
        shape, is_linear = _shape(x), node.target is aten.linear.default
        # other modules could do more with their weights than this one product
        is_plain = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and all(
            parameter is None or (len(parameter.users) == 1 and str(parameter) in self.parameters)
            for parameter in (weight, bias)
        )
        if not is_plain or (is_linear and len(shape) != 2):
            self._stop(node, f'{_describe(node)}, which is no plain layer')
            return
        target = self._make(module.weight.shape[0])
        self.layers.append((path, module, shape[1] // module.weight.shape[1], self._get(x), target))
        self.numbers[node] = target

    def _multiply(self, node: Any) -> None:
        scaled = [arg for arg in node.args if self._get(arg) is not None]
        # a denominator that is scaled would do the opposite
        fits = len(scaled) == 1 and (node.target is aten.mul.Tensor or scaled[0] is node.args[0])
        if fits and _keeps_channels(node, scaled[0]):
            self._pass_on(node, scaled[0])
        else:
            self._stop(node, _describe(node))

    def _add(self, node: Any) -> None:
        first, second = node.args[:2]
        numbers = [self._get(first), self._get(second)]
        if None in numbers or not (_keeps_channels(node, first) and _keeps_channels(node, second)):
            self._stop(node, _describe(node))
            return
        one, other = (self._find(number) for number in numbers if number is not None)
        self.parents[other] = one
        if other in self.reasons:
            self.reasons.setdefault(one, self.reasons.pop(other))
        self.numbers[node] = one

    def _pass_on(self, node: Any, source: Any) -> None:
        number = self._get(source)
        if number is not None:
            self.numbers[node] = number

    def _stop(self, node: Any, reason: str) -> None:
        """The inputs of a function keep their scale: it is not homogeneous, or unknown."""
        for source in node.all_input_nodes:
            number = self._get(source)
            if number is not None:
                self.reasons.setdefault(self._find(number), reason)

    def _make(self, size: int) -> int:
        self.sizes.append(size)
        self.parents.append(len(self.parents))
        return self.parents[-1]

    def _find(self, number: int) -> int:
        while self.parents[number] != number:
            number = self.parents[number]
        return number

    def _get(self, node: Any) -> int | None:
        return self.numbers.get(node) if isinstance(node, Node) else None


def _is_homogeneous(node: Any) -> bool:
    """Whether ``f(s * x) = s * f(x)`` for its first argument, each of its channels and every s > 0."""
    source, *rest = node.args
    if not _keeps_channels(node, source):
        return False
    num_dimensions = len(_shape(source))
    if node.target is aten.mean.dim:
        return all(dimension % num_dimensions > 1 for dimension in rest[0])
    if node.target is aten.slice.Tensor:
        return bool((rest or (0,))[0] % num_dimensions != 1)
    if node.target is aten.pad.default:  # with zeros, or with values of the tensor
        return not any(rest[2:]) or rest[1] != 'constant'
    if node.target is aten.dropout.default:
        return not rest[1]
    return node.target in _HOMOGENEOUS


def _keeps_channels(node: Any, source: Any) -> bool:
    """Whether both are ``(N, C, ...)`` with the same N and C."""
    shape, before = _shape(node), _shape(source)
    return len(shape) > 1 and shape[:2] == before[:2]


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta['val'] if isinstance(node, Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _describe(node: Any) -> str:
    """The name of a function and of the module that calls it."""
    function = node.target
    name = function.overloadpacket.__name__ if isinstance(function, torch._ops.OpOverload) else function.__name__
    modules = [path for path, _ in (node.meta.get('nn_module_stack') or {}).values() if path]
    return f'it goes into {name}' + (f' of {modules[-1]}' if modules else '')

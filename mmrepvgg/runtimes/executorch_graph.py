"""The layers of a ``torch.fx`` graph: the ranges of their activations, and what of them becomes int8 for XNNPACK."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, ObserverBase, PlaceholderObserver
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from ..models.int8 import MAX_INT8, fake_quantize_kernel
from .quantizer import Ranges, find_layer

_CONVOLUTION = torch.ops.aten.conv2d.default
_LINEAR = torch.ops.aten.linear.default
_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
_MIN_INT8 = -128  # of activations
_NUM_STEPS = 255
_OBSERVERS = {'minmax': MinMaxObserver, 'histogram': HistogramObserver}
# XNNPACK's limits: a bias is a 32-bit number of products of steps, to which the products of a layer are added, and such
# a product is less than 256 steps of the output.
_MAX_BIAS = 2**30
_MAX_RATIO = 255


def find_layers(module: fx.GraphModule) -> dict[str, Any]:
    """The nodes of convolutions and linear layers, by the names of the layers in the model."""
    nodes = [node for node in module.graph.nodes if node.target in (_CONVOLUTION, _LINEAR)]
    return {find_layer(str(node.args[1].target)): node for node in nodes}


def find_convolutions(module: fx.GraphModule) -> dict[str, Any]:
    """The nodes of convolutions, by the names of the convolutions in the model."""
    return {name: node for name, node in find_layers(module).items() if node.target == _CONVOLUTION}


def find_output(layer: Any) -> Any:
    """The node whose values are the output of a layer: XNNPACK computes a ReLU together with the layer before it."""
    (first, *others) = layer.users
    return first if not others and first.target in _RELUS else layer


class _Observing(fx.Interpreter):
    """Runs a graph, and shows the values of some nodes to an observer each."""

    def __init__(self, module: fx.GraphModule, observers: Mapping[str, ObserverBase]):
        super().__init__(module)
        self.observers = observers

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.observers:
            self.observers[n.name](value)
        return value


@torch.no_grad()
def observe(module: fx.GraphModule, batches: Iterable[Tensor], calibration: str) -> Ranges:
    """The ranges of the inputs and outputs of convolutions, by the names of their nodes."""
    convolutions = find_convolutions(module).values()
    names = {tensor.name for node in convolutions for tensor in (node.args[0], find_output(node))}
    observers = {
        name: _OBSERVERS[calibration](
            dtype=torch.int8, qscheme=torch.per_tensor_affine, quant_min=_MIN_INT8, quant_max=MAX_INT8
        )
        for name in names
    }
    interpreter = _Observing(module, observers)
    for batch in batches:
        interpreter.run(batch)
    return {name: _get_range(observer) for name, observer in observers.items()}


def _get_range(observer: Any) -> tuple[float, float]:
    scale, zero_point = (float(value) for value in observer.calculate_qparams())
    return (_MIN_INT8 - zero_point) * scale, (MAX_INT8 - zero_point) * scale


class _PerChannelSteps(ObserverBase):
    """Tells the steps of a weight, which are known before. (torchao goes by this part of the name.)"""

    def __init__(self, steps: Tensor, dtype: torch.dtype, **options: Any):
        super().__init__(dtype)
        self.steps = steps
        self.qscheme, self.ch_axis = options['qscheme'], options['ch_axis']
        self.quant_min, self.quant_max = options['quant_min'], options['quant_max']

    def forward(self, x: Tensor) -> Tensor:
        return x

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.steps, torch.zeros_like(self.steps, dtype=torch.int64)


class LayerQuantizer(Quantizer):
    """Makes some layers of a graph int8.

    Args:
        chosen: Names of the layers.
        simulated: Names of convolutions whose inputs and weights are rounded to int8, but that compute in float32.
        ranges: Ranges of the inputs and outputs of convolutions, by the names of their nodes.
        granularity: ``'per-channel'`` or ``'per-tensor'``: what has a step of its own in the weights.
    """

    def __init__(self, chosen: Collection[str], simulated: Collection[str], ranges: Ranges, granularity: str):
        self.chosen, self.simulated, self.ranges, self.granularity = chosen, simulated, ranges, granularity

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        layers = [node for name, node in find_layers(model).items() if name in self.chosen]
        # steps of the activations, which the nodes before and after a tensor share
        steps = {name: (high - low) / _NUM_STEPS or 1.0 for name, (low, high) in self.ranges.items()}
        for node in layers:
            source, output = node.args[0], find_output(node)
            weight, bias = (_get_tensor(model, argument) for argument in node.args[1:3])
            if node.target == _LINEAR:
                weight_steps = self._find_steps(weight, torch.zeros(len(weight)))
                _annotate(node, {source: _DYNAMIC, node.args[1]: _specify_weight(weight_steps)})
                continue
            weight_steps = self._find_steps(weight, bias.abs() / (_MAX_BIAS * steps[source.name]))
            steps[output.name] = max(steps[output.name], steps[source.name] * weight_steps.max().item() / _MAX_RATIO)
            inputs = {source: self._specify(source, steps), node.args[1]: _specify_weight(weight_steps)}
            specification = self._specify(output, steps)
            _annotate(node, inputs)
            _annotate(output, inputs if output is node else {}, specification)
            for user in output.users:
                # so that each user gets the tensor by a node of its own, or XNNPACK mixes up int8 and float32
                _annotate(user, {output: specification})
        for name, node in find_layers(model).items():
            if name in self.simulated:
                weight = _get_tensor(model, node.args[1])
                weight.copy_(fake_quantize_kernel(weight, self.granularity == 'per-channel'))
                _annotate(node, {node.args[0]: self._specify(node.args[0], steps)})
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Do nothing: the interface has it."""

    def _find_steps(self, weight: Tensor, smallest: Tensor) -> Tensor:
        """The step of each output channel, at least ``smallest``."""
        largest = weight.abs().flatten(1).amax(1)
        if self.granularity == 'per-tensor':
            # XNNPACK takes one step for a whole weight too, but not in linear layers
            largest, smallest = (values.amax().expand(len(weight)) for values in (largest, smallest))
        steps = torch.maximum(largest / MAX_INT8, smallest)
        return torch.where(steps > 0, steps, 1.0)

    def _specify(self, tensor: fx.Node, steps: Mapping[str, float]) -> FixedQParamsQuantizationSpec:
        low, step = self.ranges[tensor.name][0], steps[tensor.name]
        zero_point = min(max(round(_MIN_INT8 - low / step), _MIN_INT8), MAX_INT8)
        return FixedQParamsQuantizationSpec(torch.int8, step, zero_point, _MIN_INT8, MAX_INT8, torch.per_tensor_affine)


_DYNAMIC = QuantizationSpec(
    torch.int8, PlaceholderObserver, _MIN_INT8, MAX_INT8, torch.per_tensor_affine, is_dynamic=True
)


def _specify_weight(steps: Tensor) -> QuantizationSpec:
    observer = _PerChannelSteps.with_args(steps=steps)
    return QuantizationSpec(torch.int8, observer, -MAX_INT8, MAX_INT8, torch.per_channel_symmetric, ch_axis=0)


def _annotate(node: fx.Node, inputs: dict[fx.Node, Any], output: Any = None) -> None:
    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(inputs, output, _annotated=True)


def _get_tensor(model: fx.GraphModule, node: fx.Node) -> Tensor:
    path, _, name = str(node.target).rpartition('.')
    return getattr(model.get_submodule(path), name).detach()

"""What the weights and inputs of layers do to the output of a network, measured on images."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..measures.difference import join_outputs
from ..progress import track
from .channels import Channels, Layer
from .scales import Sensitivity

# Number of images of which gradients are taken: a backward pass each.
NUM_GRADIENTS = 32


def describe_weights(channels: Channels) -> list[Sensitivity]:
    """The sensitivities without images: an error counts the same in every weight.

    Batch norms have made the channels of a fused model similar in size, so this says nearly as much as gradients do. It
    says less of a model that was rescaled before.
    """
    largest = [_group(layer, layer.module.weight).abs().amax(-1).cpu().double() for layer in channels.layers]
    return [Sensitivity(values, torch.ones_like(values)) for values in largest]


def measure_sensitivities(model: nn.Module, channels: Channels, batches: Iterable[Tensor]) -> list[Sensitivity]:
    """The sensitivities by the squared gradients of the outputs, and the ranges of the inputs.

    Args:
        model: Network in eval mode. Its parameters have gradients only in here.
        channels: Its layers.
        batches: Inputs ``(N, C, H, W)``. Ranges are taken from all of them, gradients from the first
            ``NUM_GRADIENTS`` images.

    Raises:
        ValueError: If there is no image, or a value is not finite.
    """
    ranges: dict[nn.Module, Tensor] = {}

    def observe(layer: nn.Module, x: Tensor) -> None:
        largest = x.detach().abs().transpose(0, 1).flatten(1).amax(1).cpu().double()
        ranges[layer] = largest.maximum(ranges[layer]) if layer in ranges else largest

    few: list[Tensor] = []
    with torch.no_grad(), _watching(channels, observe):
        for batch in batches:
            model(batch)
            if len(few) < NUM_GRADIENTS:
                few += batch[: NUM_GRADIENTS - len(few)].split(1)
    if not few:
        raise ValueError('there must be at least one image to equalize by')
    if not all(values.isfinite().all() for values in ranges.values()):
        raise ValueError('the activations of the model are not finite; its training has diverged')
    sensitivities = describe_weights(channels)
    for layer, sensitivity in zip(channels.layers, sensitivities, strict=True):
        sensitivity.weights.zero_()
        if layer.source is not None:
            sensitivity.ranges = ranges[layer.module].reshape(layer.groups, -1)
            sensitivity.inputs = torch.zeros_like(sensitivity.ranges)
    generator = torch.Generator().manual_seed(0)
    for image in track(few, 'measuring gradients'):
        _add_gradients(model, channels, sensitivities, image, generator)
    return sensitivities


def _add_gradients(
    model: nn.Module, channels: Channels, sensitivities: list[Sensitivity], image: Tensor, generator: torch.Generator
) -> None:
    """Add the squared gradients of a random projection of the outputs for one image."""
    by_module = {layer.module: (layer, s) for layer, s in zip(channels.layers, sensitivities, strict=True)}

    def add_inputs(module: nn.Module, x: Tensor) -> None:
        layer, sensitivity = by_module[module]
        if sensitivity.inputs is not None:
            inputs = sensitivity.inputs
            x.register_hook(lambda gradient: _add(inputs, gradient.transpose(0, 1).flatten(1), layer.groups))

    def add_weights(layer: Layer, sensitivity: Sensitivity, weight: Tensor) -> None:
        sensitivity.weights += _sum_squares(_group(layer, weight.grad))
        weight.grad = None  # one layer's gradient at a time is in memory

    handles = []
    for layer, sensitivity in by_module.values():
        layer.module.weight.requires_grad_()
        add = functools.partial(add_weights, layer, sensitivity)
        handles.append(layer.module.weight.register_post_accumulate_grad_hook(add))
    try:
        with torch.enable_grad(), _watching(channels, add_inputs):
            outputs = join_outputs(model(image))
            projection = (outputs * torch.randn(outputs.shape, generator=generator).to(outputs)).sum()
            projection.backward()
    finally:
        for handle in handles:
            handle.remove()
        for layer in channels.layers:
            layer.module.weight.requires_grad_(False)


def _add(total: Tensor, gradient: Tensor, groups: int) -> None:
    total += _sum_squares(gradient).reshape(groups, -1)


def _group(layer: Layer, weight: Any) -> Tensor:
    """A weight ``(C_out, C_in / groups, ...)`` as ``(groups, C_out / groups, C_in / groups, taps)``."""
    return weight.detach().reshape(layer.groups, weight.shape[0] // layer.groups, weight.shape[1], -1)


def _sum_squares(values: Tensor) -> Tensor:
    """The sum of the squares over the last dimension, float64. Squares of tiny numbers would be 0 in float32."""
    peak = values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)
    return (values / peak).square().sum(-1).cpu().double() * peak.item() ** 2


@contextmanager
def _watching(channels: Channels, function: Any) -> Iterator[None]:
    """Call a function with each layer and its input."""
    handles = [
        layer.module.register_forward_pre_hook(lambda module, args: function(module, args[0]))
        for layer in channels.layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

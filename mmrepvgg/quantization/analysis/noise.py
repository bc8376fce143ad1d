"""The ratio of signal to quantization noise, in dB."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ...models.fake_quant_settings import GRANULARITIES
from .points import Point, find_layers, intercept, to_channels
from .results import Activations
from .simulation import quantize_activations, quantize_weight

# Ratio in dB that stands for no noise at all. float32 itself has about 140 dB.
MAX_SNR = 100.0


def to_decibel(signal: Tensor, noise: Tensor) -> Tensor:
    """The ratio of two powers in dB, limited to ``-MAX_SNR`` and ``MAX_SNR``."""
    return (10 * (signal / noise).log10()).nan_to_num(MAX_SNR, MAX_SNR, -MAX_SNR).clamp(-MAX_SNR, MAX_SNR)


class OutputNoise:
    """The signal and noise of each channel of a layer's output, collected over batches."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    def update(self, reference: Tensor, rounded: Mapping[str, Tensor]) -> None:
        """Add a batch: outputs ``(N, C, ...)`` of float32, and those of int8 by granularity."""
        values = reference.transpose(0, 1).flatten(1).double()  # (C, N * H * W)
        self.count += values.shape[1]
        self._add('value', values)
        self._add('square', values.square())
        for granularity, output in rounded.items():
            self._add(granularity, (output - reference).transpose(0, 1).flatten(1).double().square())

    def summarise(self) -> dict[str, float]:
        """The lower quartile over the channels in dB, by granularity. Constant channels do not count."""
        variance = self.sums['square'] / self.count - (self.sums['value'] / self.count).square()
        # compared with the squares, because the difference of two large numbers is not exactly 0
        varying = variance > 1e-12 * self.sums['square'] / self.count
        return {
            granularity: _find_quartile(to_decibel(variance, self.sums[granularity] / self.count)[varying])
            for granularity in GRANULARITIES
        }

    def _add(self, key: str, values: Tensor) -> None:
        self.sums[key] = self.sums.get(key, 0) + values.sum(1)


def measure_weight_noise(weight: Tensor) -> dict[str, float]:
    """The lower quartile over the output channels of ``(C_out, ...)`` in dB, by granularity. Zeros do not count."""
    snr = {}
    for granularity in GRANULARITIES:
        error = (quantize_weight(weight, granularity) - weight).double().flatten(1)
        signal = weight.double().flatten(1).square().sum(1)
        snr[granularity] = _find_quartile(to_decibel(signal, error.square().sum(1))[signal > 0])
    return snr


@torch.no_grad()
def measure_output_noise(
    model: nn.Module, batches: Iterable[Tensor], ranges: Mapping[str, Activations]
) -> dict[str, dict[str, float]]:
    """Measure the signal over noise of each layer's output, when only this layer has int8 inputs and weights.

    Args:
        model: Classifier in deploy form and eval mode.
        batches: Normalised images ``(N, C, H, W)``.
        ranges: Ranges of the activations. Layers without a range are left out.

    Returns:
        dict: Ratios in dB, by the name of the layer and by granularity.
    """
    layers = {name: layer for name, layer in find_layers(model).items() if name in ranges}
    rounded: dict[str, dict[str, nn.Module]] = {}
    for name, layer in layers.items():
        rounded[name] = {granularity: copy.deepcopy(layer) for granularity in GRANULARITIES}
        for granularity, twin in rounded[name].items():
            twin.weight.data = quantize_weight(layer.weight.data, granularity)
    noises = {name: OutputNoise() for name in layers}
    inputs: dict[str, Tensor] = {}

    def remember(name: str, x: Tensor) -> None:
        inputs[name] = quantize_activations(x, ranges[name])

    def compare(name: str, output: Tensor) -> None:
        x = inputs.pop(name)
        noises[name].update(
            to_channels(layers[name], output),
            {granularity: to_channels(twin, twin(x)) for granularity, twin in rounded[name].items()},
        )

    points_before = {name: Point(layer, True, name) for name, layer in layers.items()}
    points_behind = {name: Point(layer, False, name) for name, layer in layers.items()}
    with intercept(points_before, remember), intercept(points_behind, compare):
        for batch in batches:
            model(batch)
    return {name: noise.summarise() for name, noise in noises.items()}


def measure_logits_noise(reference: Tensor, rounded: Tensor) -> float:
    """The signal over noise of logits ``(N, classes)`` in dB.

    A change that all classes of an image have in common changes no prediction, and does not count.
    """
    signal = (reference - reference.mean(1, keepdim=True)).double()
    noise = (rounded - rounded.mean(1, keepdim=True)).double() - signal
    return to_decibel(signal.square().sum(), noise.square().sum()).item()


def _find_quartile(snr: Tensor) -> float:
    return snr.quantile(0.25).item() if snr.numel() else MAX_SNR

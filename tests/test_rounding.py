"""Adaptive rounding: weights on the grid of int8 that make up for each other's errors."""

import copy

import pytest
import torch

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.quantization import rounding
from mmrepvgg.quantization.analysis.noise import measure_logits_noise
from mmrepvgg.quantization.analysis.observe import observe_activations
from mmrepvgg.quantization.analysis.points import find_layers
from mmrepvgg.quantization.analysis.simulation import quantize_weight, simulate
from mmrepvgg.quantization.rounding import round_weights


@pytest.fixture
def network(randomise):
    """A classifier in deploy form with grouped layers and SE, and images."""
    arch = dict(
        num_blocks=[1, 2, 2, 1],
        width_factor=[0.5] * 4,
        group_layer_map={2: 2, 4: 4},
        se_cfg=dict(ratio=4, divisor=1),
    )
    model = build_classifier(
        dict(
            type='mmrepvgg.ImageClassifier',
            backbone=dict(type='mmrepvgg.RepVGG', arch=arch),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10),
        )
    )
    torch.nn.init.normal_(model.head.fc.weight)
    return reparameterize(randomise(model).eval()), torch.rand(48, 3, 32, 32).split(16)


@pytest.mark.parametrize('granularity', ['per-tensor', 'per-channel'])
@torch.no_grad()
def test_the_grid_stays_and_the_noise_falls(network, granularity):
    model, batches = network
    ranges = observe_activations(model, batches)
    layers, images = find_layers(model), torch.cat(batches)
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    expected = model(images)
    with simulate(model, ranges, granularity):
        nearest = model(images)
    round_weights(model, batches, ranges, granularity)
    for name, layer in layers.items():
        rounded, weight = layer.weight, before[name]
        torch.testing.assert_close(quantize_weight(rounded, granularity), rounded, rtol=1e-5, atol=0)
        dims = tuple(range(int(granularity == 'per-channel'), weight.ndim))
        assert torch.equal(rounded.abs().amax(dims), weight.abs().amax(dims)), name
        # some weights are not rounded to the nearest step, but none is far away
        assert not torch.equal(rounded, quantize_weight(weight, granularity)), name
        steps = weight.abs().amax(dims, keepdim=True) / 127
        assert ((rounded - weight).abs() / steps).median() < 1, name
    with simulate(model, ranges, granularity):
        noise = measure_logits_noise(expected, model(images))
    assert noise > measure_logits_noise(expected, nearest) + 3


@torch.no_grad()
def test_blocks_only_save_time(network, monkeypatch):
    model, batches = network
    found = []
    for size in (rounding._BLOCK, 10**6):
        monkeypatch.setattr(rounding, '_BLOCK', size)
        copied = copy.deepcopy(model)
        round_weights(copied, batches, observe_activations(model, batches), 'per-tensor')
        found.append(copied.backbone.stage_3[1].branch_reparam.weight)
    assert (found[0] != found[1]).float().mean() < 0.02, 'but for rounding errors in float64 it is the same'


@torch.no_grad()
def test_dead_inputs(network):
    model, batches = network
    model.backbone.stage_2[0].branch_reparam.weight.zero_()
    model.backbone.stage_2[0].branch_reparam.bias.zero_()
    model.backbone.stage_3[0].branch_reparam.weight[0] = 0
    round_weights(model, batches, observe_activations(model, batches), 'per-channel')
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert not model.backbone.stage_3[0].branch_reparam.weight[0].any()

"""Equalization and int8 of models that are not this project's, after the switch has fused them."""

import copy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from int8_source import METADATA
from mmpretrain.models import build_classifier
from narrow_timm import build_narrow_timm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrepvgg import QuantizationSettings, equalize, reparameterize
from mmrepvgg.equalization import scales
from mmrepvgg.equalization.equalize import NothingToRescaleError
from mmrepvgg.quantization.analysis.analyze import analyze_model
from mmrepvgg.quantization.analysis.noise import measure_logits_noise
from mmrepvgg.quantization.analysis.observe import observe_activations
from mmrepvgg.quantization.analysis.points import find_layers
from mmrepvgg.quantization.analysis.simulation import simulate
from mmrepvgg.quantization.candidates import Candidates
from mmrepvgg.quantization.plan import make_plan
from mmrepvgg.quantization.rounding import round_weights
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.onnx import ONNX
from mmrepvgg.runtimes.openvino import OPENVINO
from mmrepvgg.runtimes.prepared import PreparedModel

BUILDERS: dict[str, Any] = {
    'mmpretrain MobileOne': lambda: build_classifier(
        dict(
            type='ImageClassifier',
            backbone=dict(type='MobileOne', arch='s0'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=1024),
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
            _scope_='mmpretrain',
        )
    ),
    'timm repvgg_a0': lambda: build_narrow_timm('repvgg_a0', 10),
    'timm mobilenetv3': lambda: timm.create_model('mobilenetv3_small_050', num_classes=10),
}
# How much the gains of its batch norms differ. With more, the random network with gates would be chaotic.
SPREADS = {'mmpretrain MobileOne': 1.0, 'timm repvgg_a0': 1.0, 'timm mobilenetv3': 0.5}


def make_images(number: int = 16) -> Tensor:
    return torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def switch(randomise) -> Any:
    """Build a network whose channels differ much in size, and fuse it."""

    @cache
    def build(name: str) -> Any:
        torch.manual_seed(0)
        model = randomise(BUILDERS[name]())
        generator = torch.Generator().manual_seed(0)
        for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
            norm.weight.data *= (SPREADS[name] * torch.randn(norm.weight.shape, generator=generator)).exp()
        model.eval()
        return SimpleNamespace(model=model, deployed=reparameterize(model))

    return build


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    """Stop the search for the best scales early, to save time."""
    monkeypatch.setattr(scales, '_MAX_STEPS', 10)


@torch.no_grad()
def measure_snr(model: nn.Module, images: Tensor) -> float:
    """Signal over noise of the logits in dB with everything in int8, one scale a tensor."""
    with simulate(model, observe_activations(model, [images]), 'per-tensor'):
        rounded = model(images)
    return measure_logits_noise(model(images), rounded)


@pytest.mark.parametrize('name', BUILDERS)
@torch.no_grad()
def test_equalization_leaves_the_function(switch, name):
    model, images = copy.deepcopy(switch(name).deployed).double(), make_images(2).double()
    result = equalize(model)
    assert result.num_channels > 300
    expected, got = model(images), result.model(images)
    assert ((got - expected).abs().max() / expected.abs().max()).item() < 1e-10


@pytest.mark.parametrize('name', ['mmpretrain MobileOne', 'timm repvgg_a0'])
def test_equalization_reaches_every_layer_of_relu_networks_and_serves_int8(switch, name):
    deployed, images = switch(name).deployed, make_images()
    result = equalize(deployed, images)
    assert list(result.left_alone.values()) == ['the model returns it']
    assert result.difference < 1e-4
    assert measure_snr(result.model, images) > measure_snr(deployed, images) + 6


def test_scales_stop_at_hardswish_and_the_reason_names_it(switch):
    result = equalize(switch('timm mobilenetv3').deployed)
    assert result.difference < 1e-4
    assert result.left_alone['conv_stem'] == 'it goes into hardswish of bn1.act'
    assert result.left_alone['blocks.0.0.se.conv_expand'] == 'it goes into hardsigmoid of blocks.0.0.se.gate'


@pytest.mark.parametrize('name', BUILDERS)
@torch.no_grad()
def test_rounding_serves_every_network(switch, name):
    model, images = copy.deepcopy(switch(name).deployed), make_images()
    expected, ranges = model(images), observe_activations(model, [images])

    def measure() -> float:
        with simulate(model, ranges, 'per-channel'):
            return measure_logits_noise(expected, model(images))

    before = measure()
    round_weights(model, [images], ranges, 'per-channel')
    assert measure() > before


class Silu(nn.Module):
    """No scale passes; the linear layers take tokens, and the first convolution has another padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 16, 3, padding='same', padding_mode='reflect'), nn.SiLU()
        self.tokens, self.twice = nn.Linear(16, 32), nn.Linear(32, 32)
        self.fc = nn.Linear(32, 10, bias=False)  # OpenVINO's last operation is then the product itself

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x)).flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, H * W, C)
        x = self.act(self.tokens(x))
        x = self.act(self.twice(self.act(self.twice(x))))
        return self.fc(x.mean(1))


def make_silu() -> nn.Module:
    torch.manual_seed(0)
    return Silu().eval()


@torch.no_grad()
def test_rounding_of_tokens_of_other_paddings_and_of_dead_channels():
    model, images = make_silu(), torch.rand(16, 3, 16, 16)
    images[:, 1] = 0
    images[:, 2] *= 1e-25  # the square is 0 in float32
    expected, ranges, weights = model(images), observe_activations(model, [images]), copy.deepcopy(model.state_dict())
    with simulate(model, ranges, 'per-channel'):
        nearest = measure_logits_noise(expected, model(images))
    round_weights(model, [images], ranges, 'per-channel')
    with simulate(model, ranges, 'per-channel'):
        assert measure_logits_noise(expected, model(images)) > nearest + 1
    assert torch.equal(model.twice.weight, weights['twice.weight']), 'it has two inputs'
    assert not torch.equal(model.tokens.weight, weights['tokens.weight'])


def make_candidates(deployed: nn.Module, row: Any, folder: Any, **settings: Any) -> Candidates:
    """int8 models of a network in memory."""
    metadata = replace(METADATA, input_size=(32, 32))
    plan = make_plan(row, QuantizationSettings(**settings))
    batches = [batch.numpy() for batch in make_images().split(8)]
    return Candidates(PreparedModel(deployed, deployed, metadata, False), plan, batches, folder)


@pytest.mark.parametrize(
    ('row', 'name'), [(ONNX, 'mmpretrain MobileOne'), (ONNX, 'timm mobilenetv3'), (OPENVINO, 'timm repvgg_a0')]
)
@torch.no_grad()
def test_int8_files(switch, tmp_path, row, name):
    deployed, images = switch(name).deployed, make_images()
    candidates = make_candidates(deployed, row, tmp_path, adaptive_rounding=False)
    int8 = candidates.best.int8
    assert int8.layers == dict.fromkeys(find_layers(deployed), True)
    path, expected = tmp_path / f'net{row.suffixes[0]}', deployed(images)
    errors = []
    for kept in ((), tuple(int8.layers)[:-1], tuple(int8.layers)):
        int8.write(path, candidates.metadata, kept)
        errors.append(((load_exported(path)(images) - expected).std() / expected.std()).item())
    whole, last, none = errors
    assert none < 1e-4 < last < whole < 1


@pytest.mark.parametrize('row', [ONNX, OPENVINO], ids=lambda row: row.name)
def test_networks_without_a_channel_to_rescale(tmp_path, row):
    model = make_silu()
    candidates = make_candidates(model, row, tmp_path, granularity='per-tensor')
    assert candidates.num_equalized == 0
    assert candidates.best.int8.layers == dict.fromkeys(['conv', 'tokens', 'twice', 'fc'], True)
    with pytest.raises(
        NothingToRescaleError, match='nothing in Silu can be rescaled, .* pass: conv: it goes into silu'
    ):
        make_candidates(model, row, tmp_path, granularity='per-tensor', equalize=True)


def test_the_analysis_takes_any_classifier(switch):
    images = torch.randint(256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = switch('mmpretrain MobileOne')
    analysis = analyze_model(found.model, [images], [(images, None)])
    assert [layer.name for layer in analysis.layers] == list(find_layers(found.deployed))
    outcomes = {outcome.treatment: outcome.logits_snr for outcome in analysis.outcomes if outcome.treatment}
    assert outcomes['equalized'] > analysis.find('per-tensor').logits_snr

"""The prediction of what int8 will do, against hand-computed numbers and against ONNX Runtime itself."""

import copy
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mmrepvgg import load_config, reparameterize
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.data.digits import prepare_digits
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.models.blocks import RepVGGBlock
from mmrepvgg.models.building import build_model
from mmrepvgg.models.fake_quant_settings import GRANULARITIES
from mmrepvgg.models.int8 import find_uint8_grid
from mmrepvgg.quantization.analysis.analyze import analyze, analyze_model
from mmrepvgg.quantization.analysis.noise import MAX_SNR, OutputNoise, measure_logits_noise, measure_weight_noise
from mmrepvgg.quantization.analysis.observe import Observer, describe_kernel, describe_norms, observe_activations
from mmrepvgg.quantization.analysis.points import find_layers, find_points
from mmrepvgg.quantization.analysis.results import (
    CLIP_SCALES,
    Activations,
    Analysis,
    Kernel,
    Layer,
    Norm,
    Outcome,
)
from mmrepvgg.quantization.analysis.simulation import quantize_activations, quantize_weight, simulate
from mmrepvgg.quantization.analysis.verdict import (
    explain,
    find_blame,
    find_level,
    find_mark,
    find_worst,
    judge,
    predict,
)
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.classifier import load_classifier
from mmrepvgg.runtimes.loading import load_exported

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / 'configs' / 'repvgg' / 'repvgg-a0_digits.py'
PLAIN = dict(num_blocks=[1, 2, 2, 1], width_factor=[0.5, 0.5, 1, 0.5])
ARCHS = {
    'plain': PLAIN,
    'SE': PLAIN | dict(se_cfg=dict(ratio=4, divisor=1)),
    'SE after act, grouped': PLAIN | dict(se_cfg=dict(ratio=4, divisor=1), se_after_act=True, group_layer_map={3: 4}),
}
# Block and channel of the model that collapses.
BAD_BLOCK, BAD_CHANNEL = 'backbone.stage_3.1', 5


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """data/digits, and a config and two checkpoints whose heads fit the digits: good.pth and bad.pth."""
    folder = tmp_path_factory.mktemp('analysis')
    torch.manual_seed(0)
    prepare_digits(folder / 'data' / 'digits')
    cfg = make_config(folder, PLAIN)
    cfg.dump(folder / 'config.py')
    model = fit(cfg, build_model(cfg, deploy=False))
    torch.save({'state_dict': model.state_dict()}, folder / 'good.pth')
    torch.save({'state_dict': spoil(cfg, model).state_dict()}, folder / 'bad.pth')
    return folder


def make_config(folder, arch):
    cfg = load_config(str(DIGITS))
    cfg.model.backbone.arch = dict(arch)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(folder / 'data' / 'digits')
    return cfg


@torch.no_grad()
def fit(cfg, model):
    """Norms of the data, and a head by ridge regression: a trained network in seconds.

    The norms of a block have one variance for all channels, so that no channel is nearly dead.
    """
    batches = read_training(cfg, model)
    for block in (module for module in model.modules() if isinstance(module, RepVGGBlock)):
        norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        for images, _ in batches:
            model.extract_feat(images)
        for norm in norms:
            norm.running_var.fill_(norm.running_var.mean())
            norm.eval()
    fit_head(model, batches)
    return model


def read_training(cfg, model):
    return [
        (model.data_preprocessor(dict(inputs=images))['inputs'], labels)
        for images, labels in iterate_samples(cfg, 'train', 800, batch_size=200)
    ]


def fit_head(model, batches):
    features = torch.cat([model.extract_feat(images)[-1] for images, _ in batches]).double()
    targets = torch.nn.functional.one_hot(torch.cat([labels for _, labels in batches]), 10).double()
    centred = features - features.mean(0)
    gram = centred.T @ centred
    weight = torch.linalg.solve(gram + 0.3 * gram.diagonal().mean() * torch.eye(len(gram)), centred.T @ targets)
    model.head.fc.weight.copy_(weight.T)
    model.head.fc.bias.copy_(targets.mean(0) - features.mean(0) @ weight)


@torch.no_grad()
def spoil(cfg, model):
    """Kill a channel, so that the next block's norm on it has a variance of 0: the scale is all that eps allows.

    The function hardly changes: 0 times 316 is 0. The fused kernel has one weight of 316.
    """
    model = copy.deepcopy(model)
    before, block = model.backbone.stage_3
    for branch in (before.branch_3x3.norm, before.branch_1x1.norm):
        branch.weight[BAD_CHANNEL] = branch.bias[BAD_CHANNEL] = 0
        branch.running_mean[BAD_CHANNEL] = 0
    block.branch_norm.running_mean[BAD_CHANNEL] = block.branch_norm.running_var[BAD_CHANNEL] = 0
    fit_head(model, read_training(cfg, model))
    return model


def quantize_onnx(cfg, source, folder, granularity, num_calibration):
    """A real int8 file: normalised images to logits."""
    settings = QuantizationSettings(granularity=granularity, num_samples=num_calibration)
    path = folder / f'{source.stem}.{granularity}.onnx'
    quantize_model(cfg, source, path, settings)
    return load_exported(path)


def read_normalised(cfg, model, split, num):
    batches = list(iterate_samples(cfg, split, num, batch_size=32))
    images = [model.data_preprocessor(dict(inputs=images))['inputs'] for images, _ in batches]
    return images, torch.cat([labels for _, labels in batches])


class TestAgainstOnnxRuntime:
    @pytest.mark.parametrize('arch', ['SE', 'SE after act, grouped'])
    @torch.no_grad()
    def test_the_simulation_computes_the_same(self, workspace, tmp_path, arch):
        cfg = make_config(workspace, ARCHS[arch])
        model = fit(cfg, build_model(cfg, deploy=False))
        torch.save(model.state_dict(), tmp_path / 'model.pth')
        deployed = reparameterize(model)
        calibration, _ = read_normalised(cfg, model, 'train', 64)
        images = torch.cat(read_normalised(cfg, model, 'test', 64)[0])
        ranges, expected = observe_activations(deployed, calibration), deployed(images)
        assert set(ranges) == set(find_points(deployed))
        for granularity in GRANULARITIES:
            actual = quantize_onnx(cfg, tmp_path / 'model.pth', tmp_path, granularity, 64)(images)
            with simulate(deployed, ranges, granularity):
                simulated = deployed(images)
            own_noise = measure_logits_noise(expected, actual)
            assert measure_logits_noise(simulated, actual) > own_noise + 6
            assert measure_logits_noise(expected, simulated) == pytest.approx(own_noise, abs=0.5)
            assert (simulated.argmax(1) == actual.argmax(1)).double().mean() > 0.9
        assert torch.equal(deployed(images), expected), 'the model is as it was'
        with simulate(deployed, ranges, 'per-tensor', kept=list(find_layers(deployed))):
            assert torch.equal(deployed(images), expected), 'pooled tensors are kept with the layers behind them'

    @pytest.mark.parametrize(('name', 'levels'), [('good', ['safe', 'safe']), ('bad', ['collapses', 'safe'])])
    def test_the_prediction_comes_true(self, workspace, name, levels):
        cfg, source = make_config(workspace, PLAIN), workspace / f'{name}.pth'
        analysis = analyze(cfg, source, num_samples=400, num_calibration=64, batch_size=60)
        verdict = judge(analysis)
        assert analysis.accuracy > 80
        assert (analysis.num_images, analysis.num_calibration, analysis.was_switched) == (360, 64, True)
        assert [prediction.level for prediction in verdict.predictions] == levels

        model = load_classifier(cfg, source)
        images, labels = read_normalised(cfg, model, 'test', 400)
        for prediction in verdict.predictions:
            run = quantize_onnx(cfg, source, workspace, prediction.granularity, 64)
            accuracy = 100 * (torch.cat([run(batch) for batch in images]).argmax(1) == labels).double().mean().item()
            # the margins of this network are small: a rounding more or less turns a few of 360 images
            assert analysis.accuracy - accuracy == pytest.approx(prediction.drop, abs=1.5)

        if name == 'bad':
            assert verdict.blame == 'weights'
            assert verdict.worst == (BAD_BLOCK,)
            assert verdict.causes[0].startswith(f'{BAD_BLOCK}: its largest output channel is ')
            assert "from the identity branch: its batch norm's scales reach 316" in verdict.causes[0]
            assert '1 nearly dead channel' in verdict.causes[0]
            assert verdict.advice[0].startswith('use per-channel weights')
            kept = analysis.find('per-tensor', keeping=True)
            assert kept.kept == (BAD_BLOCK,)
            assert kept.drop < 1.5 < 20 < analysis.find('per-tensor').drop
            assert analysis.find('per-tensor', weights=False).drop < 1.5, 'the activations are harmless'
        else:
            assert (verdict.blame, verdict.worst, verdict.causes) == (None, (), ())
            assert verdict.advice[0] == 'ship int8, per-tensor or per-channel'


class TestStatistics:
    def test_a_kernel_by_hand(self):
        weight = torch.zeros(4, 2, 3, 3)
        weight[:, 0, 1, 1] = torch.tensor([8.0, -2, 2, 1])
        weight[0, 1, 0, 2] = -4
        kernel = describe_kernel(weight)
        # 72 weights, of which the squares' sum is 64 + 4 + 4 + 1 + 16 = 89, and the sum 5
        assert kernel.max_over_std == pytest.approx(8 / math.sqrt(89 / 72 - (5 / 72) ** 2))
        assert (kernel.abs_max, kernel.centre_over_rest, kernel.channel_spread) == (8, 2, 4)
        assert (kernel.channel_maxima[0], kernel.channel_maxima[16], kernel.channel_maxima[-1]) == (1, 2, 8)
        assert describe_kernel(weight[:, :, 1, 1]).centre_over_rest is None
        assert describe_kernel(weight[:, :, :1, :1]).centre_over_rest is None

    def test_channels_of_zeros_do_not_count(self):
        weight = torch.zeros(5, 1, 1, 1)
        weight[:2, 0, 0, 0] = torch.tensor([3.0, 1.0])
        assert describe_kernel(weight).channel_spread == 1.5

    def test_a_kernel_of_zeros(self):
        kernel = describe_kernel(torch.zeros(2, 2, 3, 3))
        assert (kernel.max_over_std, kernel.centre_over_rest, kernel.channel_spread) == (0, 0, 1)
        assert measure_weight_noise(torch.zeros(2, 2, 3, 3)) == dict.fromkeys(GRANULARITIES, MAX_SNR)

    def test_activations_over_batches(self):
        observer = Observer()
        values = torch.rand(3, 4, 50, 50, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
        values[1, 2, 3, 3] = 60.0
        for batch in values.split([1, 2]):
            observer.update(batch)
        found = observer.summarise()
        assert (found.low, found.high) == (values.min().item(), 60)
        exact = values.abs().flatten().sort().values[math.ceil(0.9999 * values.numel()) - 1].item()
        assert exact <= found.percentile <= 1.016 * exact
        assert found.outlier_ratio == 60 / found.percentile
        assert found.channel_spread == pytest.approx(60 / values.abs().amax((0, 2, 3)).quantile(0.5).item())

    def test_activations_that_are_all_zero(self):
        observer = Observer()
        observer.update(torch.zeros(1, 2))
        assert observer.summarise() == Activations(0, 0, 0, 1)
        assert observer.summarise().outlier_ratio == 1

    @pytest.mark.parametrize('value', [math.nan, math.inf])
    def test_activations_that_are_not_finite(self, value):
        with pytest.raises(ValueError, match='activations of the model are not finite; its training has diverged'):
            Observer().update(torch.tensor([[1.0, value]]))

    def test_norms_by_hand(self):
        block = RepVGGBlock(4, 4)
        block.branch_1x1.norm.weight.data = torch.tensor([1.0, -3.0, 1.0, 1.0])
        block.branch_norm.running_var[2] = 0
        norms = {norm.branch: norm for norm in describe_norms(torch.nn.ModuleDict(dict(block=block)))['block']}
        assert set(norms) == {'3x3', '1x1', 'identity'}
        assert norms['1x1'].spread == pytest.approx(3)
        assert norms['1x1'].scale == pytest.approx((1 + 1e-5) ** -0.5)
        assert norms['identity'].largest_scale == pytest.approx(1e5**0.5)
        assert (norms['identity'].smallest_variance, norms['identity'].num_dead) == (0, 1)
        assert norms['3x3'].num_dead == 0
        block.switch_to_deploy()
        assert describe_norms(torch.nn.ModuleDict(dict(block=block))) == {}

    def test_noise_of_outputs_is_that_of_the_lower_quartile(self):
        generator = torch.Generator().manual_seed(0)
        reference = torch.randn(2, 5, 8, 8, generator=generator, dtype=torch.float64) + 1000
        reference[:, 4] = 7.0  # never varies
        noise = torch.tensor([0.1, 0.1, 0.01, 0.01, 5.0])[:, None, None]
        collected = OutputNoise()
        for batch in reference.split(1):
            collected.update(batch, {'per-tensor': batch + noise, 'per-channel': batch})
        found = collected.summarise()
        variances = reference.transpose(0, 1).flatten(1).var(1, unbiased=False)
        expected = 10 * torch.log10(variances[:4] / torch.tensor([0.1, 0.1, 0.01, 0.01]).double().square())
        assert found['per-tensor'] == pytest.approx(expected.quantile(0.25).item(), abs=1e-3)
        assert found['per-channel'] == MAX_SNR

    def test_what_all_classes_share_is_no_noise(self):
        logits = torch.randn(4, 10)
        assert measure_logits_noise(logits, logits + 3) > 90
        assert measure_logits_noise(logits, logits + 0.1 * torch.randn(4, 10)) == pytest.approx(20, abs=3)


class TestQuantizers:
    @pytest.mark.parametrize(
        ('low', 'high', 'grid'),
        [(-1.0, 4.1, (0.02, 50)), (1.0, 5.1, (0.02, 0)), (-5.1, -1.0, (0.02, 255)), (0.0, 0.0, (1.0, 0))],
    )
    def test_grid_of_activations(self, low, high, grid):
        scale, zero_point = find_uint8_grid(torch.tensor(low), torch.tensor(high))
        assert (scale.item(), zero_point.item()) == pytest.approx(grid)

    def test_activations_are_rounded_and_clipped(self):
        x = torch.tensor([-9.0, -0.994, 0.0, 0.013, 9.0])
        assert quantize_activations(x, Activations(-1.0, 4.1, 1, 1)).tolist() == pytest.approx([-1, -1, 0, 0.02, 4.1])

    def test_weights(self):
        weight = torch.tensor([[127.0, 1.4, -0.6], [1.27, -0.014, 0.0], [0.0, 0.0, 0.0]])
        per_tensor = [[127, 1, -1], [1, 0, 0], [0, 0, 0]]
        per_channel = [[127, 1, -1], [1.27, -0.01, 0], [0, 0, 0]]
        for granularity, expected in (('per-tensor', per_tensor), ('per-channel', per_channel)):
            assert torch.allclose(quantize_weight(weight, granularity), torch.tensor(expected).float())
        with pytest.raises(ValueError, match="granularity must be one of per-tensor, per-channel, got 'per-layer'"):
            quantize_weight(weight, 'per-layer')

    @torch.no_grad()
    def test_parts_of_the_model(self, workspace):
        cfg = make_config(workspace, ARCHS['SE'])
        model = reparameterize(build_model(cfg, deploy=False))
        images = torch.randn(4, 3, 32, 32)
        ranges, expected = observe_activations(model, [images]), model(images)
        layers = find_layers(model)
        assert {'backbone.stem', 'backbone.stage_3.1.se_layer.conv2.conv', 'head.fc'} < set(layers)
        assert next(iter(ranges)) == 'backbone.stem'
        before = layers['backbone.stem'].weight.clone()
        with simulate(model, ranges, 'per-tensor', kept=['backbone.stem'], activations=False):
            assert torch.equal(layers['backbone.stem'].weight, before)
            assert not torch.equal(model(images), expected)
        with simulate(model, ranges, 'per-tensor', kept=list(layers)):
            assert torch.equal(model(images), expected)
        with pytest.raises(ZeroDivisionError, match='division by zero'), simulate(model, ranges, 'per-tensor'):
            _ = 1 / 0
        assert torch.equal(layers['backbone.stem'].weight, before)
        assert torch.equal(model(images), expected)


def make_outcome(lost=0, gained=0, num=360, granularity='per-tensor', snr=30.0, **settings):
    settings = dict(weights=True, activations=True, kept=()) | settings
    agreeing = num - lost - gained
    return Outcome(granularity, **settings, num_images=num, num_agreeing=agreeing, num_lost=lost, num_gained=gained,
                   accuracy=90.0, logits_snr=snr)  # fmt: skip


def make_layer(name='a', effect=30.0, spread=1.0, tall=5.0, outliers=1.0, norms=()):
    snr = dict.fromkeys(GRANULARITIES, 30.0)
    inputs = Activations(0, outliers, 1, 1)
    return Layer(name, Kernel(1, tall, 3, spread, (1,)), inputs, snr, snr, effect, norms)


class TestVerdict:
    @pytest.mark.parametrize(
        ('drop', 'level'), [(-2, 'safe'), (1.0, 'safe'), (1.01, 'at risk'), (10, 'at risk'), (70, 'collapses')]
    )
    def test_levels(self, drop, level):
        assert find_level(drop) == level

    def test_interval(self):
        # Agresti and Min: (12.5 - 2.5) / 362, and the root of (15 - 100 / 362) / 362^2
        found = predict(make_outcome(12, 2))
        assert found.drop == pytest.approx(100 * 10 / 360)
        assert found.low == pytest.approx(100 * (10 - 1.96 * math.sqrt(15 - 100 / 362)) / 362)
        assert found.high == pytest.approx(100 * (10 + 1.96 * math.sqrt(15 - 100 / 362)) / 362)
        assert (found.level, found.is_certain) == ('at risk', False)
        assert predict(make_outcome(0, num=36000)).is_certain
        assert not predict(make_outcome(0, num=36)).is_certain
        assert predict(make_outcome(1, num=1)).high == 100

    def test_blame(self):
        def blame(weights, activations):
            outcomes = (make_outcome(weights, activations=False), make_outcome(activations, weights=False))
            return find_blame(Analysis((), outcomes, 90.0, 10, 360, 10))

        assert (blame(90, 20), blame(20, 90), blame(50, 40)) == ('weights', 'activations', 'both')
        assert blame(3, 0) == 'both', 'each alone is safe'

    def test_worst_layers(self):
        layers = tuple(make_layer(str(effect), effect) for effect in (30, 12, 3, 19, 5, 10, 11))
        assert [layer.name for layer in find_worst(layers)] == ['3', '5', '10', '11', '12']
        assert [find_mark(layer) for layer in layers] == ['', '!', '!!', '!', '!!', '!', '!']
        assert [layer.name for layer in find_worst(layers[:2])] == ['12']
        assert [layer.name for layer in find_worst(layers[:1])] == ['30'], 'the one worst, if none is marked'

    @pytest.mark.parametrize(
        ('layer', 'sentence'),
        [
            (make_layer(), 'a: no single cause stands out'),
            (make_layer(spread=40), 'a: its largest output channel is 40 times the median one'),
            (
                make_layer(tall=200, norms=(Norm('3x3', 1, 1.5, 1, 0), Norm('identity', 4, 6, 1, 0))),
                'a: its largest weight is 200 standard deviations (centre tap 3.0 times the rest), from the identity '
                "branch: its batch norm's scales reach 6",
            ),
            (
                make_layer(spread=40, norms=(Norm('1x1', 2, 300, 1e-9, 3),)),
                "a: its largest output channel is 40 times the median one, from the 1x1 branch: its batch norm's "
                'scales reach 300, 150 times their median (3 nearly dead channel(s), running variance down to 1e-09)',
            ),
            (make_layer(outliers=20), 'a: its input reaches 20 times what 99.99% of it stay below'),
        ],
    )
    def test_causes(self, layer, sentence):
        assert explain(layer) == sentence

    def test_advice_where_per_channel_fails_too(self):
        outcomes = (
            make_outcome(90),
            make_outcome(50, granularity='per-channel'),
            make_outcome(80, activations=False),
            make_outcome(5, weights=False),
            make_outcome(18, kept=('a',)),
        )
        analysis = Analysis((make_layer(effect=3),), outcomes, 90.0, 10, 360, 128)
        first, second, third = judge(analysis).advice
        assert (
            first
            == 'per-channel weights will not do either: they lose about 13.9 points (per-tensor ones about 25.0 points)'
        )
        assert '`quantize_model` with `max_drop=0.5`' in second
        assert 'with a in float32 the loss is about 5.0 points' in second
        assert 'QARepVGG' in third
        safe = replace(analysis, outcomes=(make_outcome(0), *outcomes[1:]))
        assert judge(safe).advice[0] == 'ship int8, per-tensor'
        untrained = replace(analysis, accuracy=12.0)
        assert 'hardly more than by chance' in judge(untrained).advice[-1]

    @pytest.mark.parametrize(
        ('num_classes', 'accuracy', 'is_chance'), [(2, 99.0, False), (2, 55.0, True), (1, 100.0, False), (10, 19, True)]
    )
    def test_chance(self, num_classes, accuracy, is_chance):
        outcomes = (make_outcome(0), make_outcome(0, granularity='per-channel'))
        advice = judge(Analysis((), outcomes, accuracy, num_classes, 360, 128)).advice
        assert any('hardly more than by chance' in line for line in advice) is is_chance


class TestAnalysis:
    def test_without_labels(self, workspace):
        cfg = make_config(workspace, PLAIN)
        model = load_classifier(cfg, workspace / 'bad.pth')
        state = copy.deepcopy(model.state_dict())
        images = [images for images, _ in iterate_samples(cfg, 'test', 48)]
        analysis = analyze_model(model, images, [(batch, None) for batch in images])
        outcome = analysis.find('per-tensor')
        assert (analysis.accuracy, outcome.accuracy, outcome.num_gained) == (None, None, 0)
        assert outcome.num_lost == 48 - outcome.num_agreeing > 10
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        assert not model.backbone.deploy

    def test_a_deploy_form_gives_the_same_but_the_norms(self, workspace):
        cfg = make_config(workspace, PLAIN)
        model = load_classifier(cfg, workspace / 'bad.pth')
        batches = list(iterate_samples(cfg, 'test', 48))
        images = [images for images, _ in batches]
        train, deploy = (analyze_model(m, images, batches) for m in (model, reparameterize(model)))
        assert (train.was_switched, deploy.was_switched) == (True, False)
        assert tuple(outcome for outcome in train.outcomes if outcome.clip_scales is None) == deploy.outcomes
        assert (train.find_clipped() is None, deploy.find_clipped()) == (False, None), 'it takes branches'
        assert [replace(layer, norms=()) for layer in train.layers] == list(deploy.layers)
        assert [layer.name for layer in deploy.layers][-2:] == ['backbone.stage_4.0', 'head.fc']

    def test_limiting_the_scales_is_tried_and_does_in_a_file_what_was_said(self, workspace, tmp_path):
        cfg = make_config(workspace, PLAIN)
        analysis = analyze(cfg, workspace / 'bad.pth', num_samples=360, num_calibration=64)
        clipped = analysis.find_clipped()
        assert clipped.clip_scales == CLIP_SCALES
        assert clipped.drop < 5 < analysis.find('per-tensor').drop - 10
        (advice,) = (line for line in judge(analysis).advice if '`clip_scales=4`' in line)
        assert advice.endswith(
            f'the loss is about {clipped.drop:.1f} points' if clipped.drop > 0 else 'the loss is nothing'
        )
        settings = QuantizationSettings('per-tensor', num_samples=64, clip_scales=CLIP_SCALES)
        result = quantize_model(cfg, workspace / 'bad.pth', tmp_path / 'net.onnx', settings)
        assert result.num_clipped >= 1
        # the reference is the model as it was trained
        assert result.accuracy_reference == pytest.approx(analysis.accuracy)
        assert result.accuracy == pytest.approx(clipped.accuracy, abs=1.5)

    def test_inserted_norms_are_no_branches_to_limit(self, workspace, tmp_path):
        cfg = make_config(workspace, PLAIN)
        reparameterize_checkpoint(cfg, workspace / 'bad.pth', tmp_path / 'deploy.pth')
        cfg.model.backbone.update(deploy=True, deploy_norm=dict(type='BN'))
        model = build_model(cfg, deploy=False)
        model.load_state_dict(read_checkpoint(tmp_path / 'deploy.pth').state_dict)
        torch.save(model.state_dict(), tmp_path / 'inserted.pth')
        analysis = analyze(cfg, tmp_path / 'inserted.pth', num_samples=120, num_calibration=32)
        assert judge(analysis).predictions[0].level == 'collapses'
        assert analysis.find_clipped() is None

    def test_wrapped_and_joined_data_sets(self, workspace):
        cfg = make_config(workspace, PLAIN)
        plain = [images for images, _ in iterate_samples(cfg, 'test', 20)]
        dataset = dict(cfg.test_dataloader.dataset)
        cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
        assert torch.equal(next(iterate_samples(cfg, 'test', 20))[0], plain[0])
        cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
        batches = list(iterate_samples(cfg, 'test', batch_size=60))
        assert sum(len(images) for images, _ in batches) == 2 * 360

    def test_images_without_labels(self, workspace, tmp_path):
        cfg = make_config(workspace, PLAIN)
        for loader, split in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
            # one folder of images, without classes
            loader.dataset.update(data_prefix=f'{split}/3', with_label=False)
        assert next(iterate_samples(cfg, 'test', 8))[1] is None
        analysis = analyze(cfg, workspace / 'good.pth', num_samples=20, num_calibration=16)
        assert (analysis.accuracy, analysis.num_images) == (None, 20)
        settings = QuantizationSettings(num_samples=16, eval_samples=0)
        result = quantize_model(cfg, workspace / 'good.pth', tmp_path / 'net.onnx', settings)
        assert (result.accuracy, result.images, result.num_images) == (None, 'train', 16)
        with pytest.raises(ValueError, match='test images of the config have no labels; `eval_samples=0` does without'):
            quantize_model(cfg, workspace / 'good.pth', tmp_path / 'other.onnx')

    def test_a_config_without_test_data(self, workspace):
        cfg = make_config(workspace, PLAIN)
        cfg.test_dataloader = None
        with pytest.raises(ValueError, match='the config must have a test_dataloader: its data set is needed here'):
            analyze(cfg, workspace / 'good.pth', split='train')

    def test_a_config_without_data(self, workspace):
        cfg = make_config(workspace, PLAIN)
        cfg.train_dataloader = None
        with pytest.raises(ValueError, match='the config must have a train_dataloader: its data set is needed here'):
            analyze(cfg, workspace / 'good.pth')

    def test_another_model(self, workspace):
        cfg = make_config(workspace, PLAIN)
        images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        with pytest.raises(
            ValueError, match=r'must be a classifier on a RepVGG of mmrepvgg, got Linear; give a config'
        ):
            analyze_model(torch.nn.Linear(2, 2), [images], [(images, None)])
        model = build_model(cfg, deploy=True)
        for calibration, samples, message in (
            ([], [(images, None)], 'at least one batch of calibration images'),
            ([images], [], 'at least one batch of samples'),
        ):
            with pytest.raises(ValueError, match=message):
                analyze_model(model, calibration, samples)


def run_tool(*args, cwd, **env):
    command = [sys.executable, str(ROOT / 'tools' / 'analyze_quantization.py'), *map(str, args)]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env)


class TestTool:
    def test_a_report_a_picture_and_json(self, workspace):
        options = ('--num-samples', '120', '--num-calibration', '32', '--out', 'out.json', '--plot', 'new/out.png')
        done = run_tool('config.py', 'bad.pth', *options, cwd=workspace)
        assert done.returncode == 0, done.stderr
        assert 'bad.pth: train form, switched to deploy form in memory' in done.stdout
        rows = [line for line in done.stdout.splitlines() if line.startswith(f'| {BAD_BLOCK} ')]
        assert len(rows) == 2, 'among the layers, and among the norms'
        assert rows[0].split('|')[-2].strip() == '!!'
        assert 'per-tensor int8: COLLAPSES: will lose about' in done.stdout
        assert 'per-channel int8: SAFE: will lose about' in done.stdout
        content = json.loads((workspace / 'out.json').read_text())
        assert content['verdict']['worst'] == [BAD_BLOCK]
        assert content['fp32']['num_images'] == 120
        assert len(content['layers']) == 8
        analysis = analyze(make_config(workspace, PLAIN), workspace / 'bad.pth', num_samples=120, num_calibration=32)
        assert content['outcomes'][0]['num_lost'] == asdict(analysis.outcomes[0])['num_lost']
        height, width, _ = cv2.imread(str(workspace / 'new' / 'out.png')).shape
        assert height > 800 < width

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (['--num-samples', '0'], "must be a whole number of at least 1, got '0'"),
            (['--split', 'val'], "invalid choice: 'val'"),
            (['--out', 'a.txt'], "must end in .json, got 'a.txt'"),
            (['--plot', 'a.svg'], "must end in .png, got 'a.svg'"),
        ],
    )
    def test_wrong_usage_is_told_before_torch_is_imported(self, workspace, options, message, tmp_path):
        (tmp_path / 'sitecustomize.py').write_text("import sys\nsys.modules['torch'] = None\n")
        path = f'{tmp_path}{os.pathsep}{ROOT}'
        done = run_tool('config.py', 'bad.pth', *options, cwd=workspace, PYTHONPATH=path)
        assert done.returncode == 2
        assert message in done.stderr

    @pytest.mark.parametrize(
        ('args', 'message'),
        [
            (['config.py', 'no.pth'], 'no.pth does not exist'),
            (['no.py', 'bad.pth'], 'no.py does not exist'),
            (
                ['config.py', 'bad.pth', '--cfg-options', 'model.head.num_classes=3'],
                'does not fit the model of the config',
            ),
            (
                ['config.py', 'bad.pth', '--cfg-options', 'test_dataloader.dataset.data_root=nowhere'],
                'test_dataloader: nowhere',
            ),
        ],
    )
    def test_an_error_is_one_line_and_writes_nothing(self, workspace, args, message):
        kept = workspace / 'kept.json'
        kept.write_text('before')
        done = run_tool(*args, '--out', 'kept.json', cwd=workspace)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith('analyze_quantization.py: error: ')
        assert message in done.stderr.splitlines()[-1]
        assert kept.read_text() == 'before'

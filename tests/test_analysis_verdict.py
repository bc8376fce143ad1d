"""The numbers and the sentences of an analysis of int8, against numbers by hand."""

import math
from dataclasses import replace

import pytest
import torch

from mmrepvgg.models.blocks import RepVGGBlock
from mmrepvgg.models.fake_quant_settings import GRANULARITIES
from mmrepvgg.models.int8 import find_uint8_grid
from mmrepvgg.quantization.analysis.noise import MAX_SNR, OutputNoise, measure_logits_noise, measure_weight_noise
from mmrepvgg.quantization.analysis.observe import Observer, describe_kernel, describe_norms
from mmrepvgg.quantization.analysis.results import TREATMENTS, Activations, Analysis, Kernel, Layer, Norm, Outcome
from mmrepvgg.quantization.analysis.simulation import quantize_activations, quantize_weight
from mmrepvgg.quantization.analysis.verdict import (
    explain,
    find_blame,
    find_level,
    find_mark,
    find_worst,
    judge,
    predict,
)


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
        with pytest.raises(ValueError, match="`granularity` must be one of per-tensor, per-channel, got 'per-layer'"):
            quantize_weight(weight, 'per-layer')


def make_outcome(lost=0, gained=0, num=360, granularity='per-tensor', snr=30.0, **settings):
    settings = dict(weights=True, activations=True, kept=()) | settings
    agreeing = num - lost - gained
    return Outcome(granularity, **settings, num_images=num, num_agreeing=agreeing, num_lost=lost, num_gained=gained,
                   accuracy=90.0, logits_snr=snr)  # fmt: skip


def make_treated(*lost):
    return tuple(make_outcome(number, treatment=name) for name, number in zip(TREATMENTS[1:], lost, strict=True))


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
            (make_layer(outliers=20), 'a: its largest input is 20 times the 99.99th percentile'),
        ],
    )
    def test_causes(self, layer, sentence):
        assert explain(layer) == sentence

    def test_advice(self):
        outcomes = (
            make_outcome(90),
            make_outcome(50, granularity='per-channel'),
            make_outcome(80, activations=False),
            make_outcome(5, weights=False),
            make_outcome(18, kept=('a',)),
            *make_treated(40, 20),
        )
        analysis = Analysis((make_layer(effect=3),), outcomes, 90.0, 10, 360, 128)
        verdict = judge(analysis)
        assert [(p.granularity, p.treatment, p.level) for p in verdict.predictions] == [
            ('per-tensor', '', 'collapses'),
            ('per-channel', '', 'collapses'),
            ('per-tensor', TREATMENTS[1], 'collapses'),
            ('per-tensor', TREATMENTS[2], 'at risk'),
        ]
        first, second, third, fourth = verdict.advice[:4]
        assert first.startswith(
            'equalize the channels, which is exact: per-tensor weights then lose about 11.1 points in'
        )
        assert first.endswith('and about 5.6 points as `quantize_model` writes them (without it about 25.0 points)')
        assert second.startswith('or use per-channel weights')
        assert second.endswith('they lose about 13.9 points without more ado')
        assert '`quantize_model` with `max_drop=0.5`' in third
        assert third.endswith('with a in float32 (not equalized) the loss is about 5.0 points')
        assert 'QARepVGG' in fourth
        saved = replace(analysis, outcomes=(*outcomes[:-2], *make_treated(3, 0)))
        assert not any('max_drop' in line for line in judge(saved).advice), 'no layer needs float32'
        safe = replace(analysis, outcomes=(make_outcome(0), *outcomes[1:]))
        assert judge(safe).advice[0] == 'ship int8, per-tensor'
        untrained = replace(analysis, accuracy=12.0)
        assert 'hardly more than by chance' in judge(untrained).advice[-1]

    @pytest.mark.parametrize(
        ('num_classes', 'accuracy', 'is_chance'), [(2, 99.0, False), (2, 55.0, True), (1, 100.0, False), (10, 19, True)]
    )
    def test_chance(self, num_classes, accuracy, is_chance):
        outcomes = (make_outcome(0), make_outcome(0, granularity='per-channel'), *make_treated(0, 0))
        advice = judge(Analysis((), outcomes, accuracy, num_classes, 360, 128)).advice
        assert any('hardly more than by chance' in line for line in advice) is is_chance

"""Quantization-aware training: the grids, the gradients, the Runner, and what ONNX Runtime computes from the result."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler, pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny_runner import TINY_BACKBONE, NoiseDataset, make_model_config, make_runner
from tool_runs import CONFIGS, SMALL, succeed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmrepvgg import (
    CalibrateInsertedNormsHook,
    QARepVGGBlock,
    QuantizationAwareHook,
    RepVGGBlock,
    build_backbone,
    build_classifier,
    clip_norm_scales,
    load_classifier,
    load_config,
    reparameterize,
)
from mmrepvgg.checkpoints.loading import load_weights
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.engine.quantization import calibrate_activation_ranges
from mmrepvgg.measures.accuracy import measure_percent
from mmrepvgg.models.building import build_model
from mmrepvgg.models.fake_quant import (
    ActivationQuantizer,
    find_quantizers,
    get_activation_ranges,
    set_fake_quantization,
)
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.models.int8 import fake_quantize_kernel, find_uint8_grid
from mmrepvgg.models.quantization_aware import QuantizationAwareBlock, QuantizationAwareQABlock
from mmrepvgg.quantization.analysis.analyze import analyze
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.quantization.settings import QuantizationSettings
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.loading import load_exported
from mmrepvgg.runtimes.prepared import normalise

PER_CHANNEL, PER_TENSOR = dict(granularity='per-channel'), dict(granularity='per-tensor')
LEARNED = dict(ranges='learned')
# With quantization-aware training, and the ordinary blocks whose branches they have.
BLOCKS = {QuantizationAwareBlock: RepVGGBlock, QuantizationAwareQABlock: QARepVGGBlock}


def make_batches(count=3):
    return [torch.randn(8, 3, 32, 32) * 2 + 1 for _ in range(count)]


def make_calibrated(randomise, backbone=None, quantization=PER_CHANNEL):
    model = randomise(build_backbone(TINY_BACKBONE | dict(quantization=quantization) | (backbone or {})))
    calibrate_activation_ranges(model, make_batches())
    return model


class TestKernel:
    KERNEL = torch.tensor([[1.27, -0.014, 0.016, 0.005], [-2.54, 0.03, 0.0, 2.54]]).reshape(2, 4, 1, 1)

    def test_per_channel_by_hand(self):
        # absmax / 127: steps of 0.01 and of 0.02; 0.5 steps go to the even number
        expected = torch.tensor([[1.27, -0.01, 0.02, 0.0], [-2.54, 0.04, 0.0, 2.54]]).reshape(2, 4, 1, 1)
        torch.testing.assert_close(fake_quantize_kernel(self.KERNEL, per_channel=True), expected)

    def test_per_tensor_by_hand(self):
        # one step of 0.02
        expected = torch.tensor([[1.28, -0.02, 0.02, 0.0], [-2.54, 0.04, 0.0, 2.54]]).reshape(2, 4, 1, 1)
        found = fake_quantize_kernel(self.KERNEL * torch.tensor([1.0, 1.0]).reshape(2, 1, 1, 1), per_channel=False)
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize('per_channel', [True, False])
    def test_gradient_goes_straight_through(self, per_channel):
        kernel, weights = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, 3, 3, 3)
        (fake_quantize_kernel(kernel, per_channel) * weights).sum().backward()
        torch.testing.assert_close(kernel.grad, weights, atol=0, rtol=0)

    @pytest.mark.parametrize('per_channel', [True, False])
    def test_zeros_stay_zero(self, per_channel):
        kernel = torch.zeros(2, 3, 3, 3)
        assert torch.equal(fake_quantize_kernel(kernel, per_channel), kernel)
        kernel[0] = 1
        assert torch.equal(fake_quantize_kernel(kernel, per_channel), kernel)


class TestActivationQuantizer:
    def test_by_hand(self):
        quantizer = ActivationQuantizer()
        x = torch.tensor([-1.0, 4.1, 0.0, 0.029, 0.031])
        # steps of 5.1 / 255 = 0.02, zero at -1 / 0.02 = 50 of them
        torch.testing.assert_close(quantizer(x), torch.tensor([-1.0, 4.1, 0.0, 0.02, 0.04]))
        scale, zero_point = find_uint8_grid(*quantizer.get_range())
        assert scale.item() == pytest.approx(0.02, rel=1e-6)
        assert zero_point == 50
        # in eval mode the range stays, and what is outside of it is clipped
        torch.testing.assert_close(quantizer.eval()(torch.tensor([-7.0, 9.0])), torch.tensor([-1.0, 4.1]))

    @pytest.mark.parametrize(('low', 'high'), [(1.0, 3.0), (-3.0, -1.0), (-0.013, 2.9), (0.0, 0.0)])
    def test_scale_and_zero_point_are_onnx_runtimes(self, low, high):
        quant_utils = pytest.importorskip('onnxruntime.quantization.quant_utils')
        quantizer = ActivationQuantizer()
        quantizer.observe(torch.tensor([low, high]), 1)
        scale, zero_point = find_uint8_grid(*quantizer.get_range())
        expected = quant_utils.compute_scale_zp(*np.float32([low, high]), *np.uint8([0, 255]))
        assert (zero_point.item(), scale.item()) == tuple(value.item() for value in expected)
        assert torch.equal(quantizer(torch.zeros(3)), torch.zeros(3))

    def test_the_first_batch_sets_the_range_and_later_ones_move_it(self):
        quantizer = ActivationQuantizer(momentum=0.25)
        quantizer(torch.tensor([-1.0, 3.0]))
        quantizer(torch.tensor([1.0, 7.0]))
        assert quantizer.min_value == -0.5
        assert quantizer.max_value == 4
        quantizer.eval()(torch.tensor([-100.0, 100.0]))
        quantizer.train().observes = False
        quantizer(torch.tensor([-100.0, 100.0]))
        assert (quantizer.min_value, quantizer.max_value) == (-0.5, 4)

    @pytest.mark.parametrize('bad', [torch.inf, -torch.inf, torch.nan])
    def test_batches_that_are_not_finite_leave_the_range(self, bad):
        quantizer = ActivationQuantizer(momentum=0.5)
        quantizer(torch.tensor([0.0, bad]))
        assert not quantizer.is_observed
        quantizer(torch.tensor([-1.0, 2.0]))
        quantizer(torch.tensor([-9.0, bad]))
        assert (quantizer.min_value, quantizer.max_value) == (-1, 2)

    def test_constant_inputs(self):
        for value, grid in ((0.0, 0.0), (5.0, 5.0), (-5.0, -5.0)):
            assert ActivationQuantizer()(torch.full((4,), value)).unique().tolist() == [pytest.approx(grid)]

    def test_without_a_range_eval_mode_changes_nothing(self):
        x = torch.randn(9)
        assert ActivationQuantizer().eval()(x) is x

    @pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
    def test_keeps_the_dtype(self, dtype):
        x = torch.linspace(-1, 1, 99).to(dtype)
        for learned in (False, True):
            y = ActivationQuantizer(learned)(x)
            assert y.dtype == dtype
            assert (y - x).abs().max() <= 1.01 / 255

    def test_gradient_of_what_is_inside_and_outside(self):
        for learned in (False, True):
            quantizer = ActivationQuantizer(learned).eval()
            quantizer.observe(torch.tensor([-1.0, 1.0]), 1)
            x = torch.tensor([[-2.0, -0.5, 0.3, 2.0]], requires_grad=True)
            quantizer(x).sum().backward()
            assert x.grad.tolist() == [[0, 1, 1, 0]]

    def test_learned_quantizes_like_observed(self):
        x = torch.randn(2, 3, 8, 8)
        learned, observed = ActivationQuantizer(learned=True), ActivationQuantizer()
        observed.observe(x, 1)
        torch.testing.assert_close(learned(x), observed.eval()(x), atol=1e-6, rtol=0)
        assert list(learned.state_dict()) == list(observed.state_dict()) == ['min_value', 'max_value']
        learned.load_state_dict(observed.state_dict())

    def test_learned_range_gradient_by_hand(self):
        quantizer = ActivationQuantizer(learned=True)
        x = torch.tensor([[0.0, 2.55]])
        quantizer(x)
        assert (quantizer.min_value, quantizer.max_value) == (0, 2.55)
        quantizer(torch.tensor([[0.013, 7.0]])).sum().backward()
        # Both are derivatives after max, through the scale of 0.01: round(1.3) - 1.3 steps, and the 255 of the clipped
        share = (2 * 255) ** -0.5
        assert quantizer.max_value.grad.item() == pytest.approx(share * (-0.3 + 255) / 255, rel=1e-4)

    def test_learned_range_finds_the_best_clipping(self):
        """One outlier among many values: the error is least where it is clipped."""
        quantizer = ActivationQuantizer(learned=True)
        x = torch.cat([torch.linspace(0, 1, 20000), torch.tensor([8.0])])[None]
        optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1)

        def compute_loss():
            return (quantizer(x) - x)[:, :-1].square().mean()

        before = compute_loss().item()
        for _ in range(300):
            optimizer.zero_grad()
            compute_loss().backward()
            optimizer.step()
        assert 0.9 < quantizer.max_value < 1.5
        assert compute_loss() < before / 16


GEOMETRIES = [
    pytest.param(dict(), id='identity'),
    pytest.param(dict(stride=2), id='stride'),
    pytest.param(dict(groups=2, se_cfg=dict(ratio=2, divisor=1)), id='groups-se'),
    pytest.param(dict(dilation=2, padding=2, se_cfg=dict(ratio=2, divisor=1), se_after_act=True), id='dilation'),
    pytest.param(dict(padding_mode='reflect', padding=2), id='reflect'),
    pytest.param(dict(padding_mode='circular', stride=2), id='circular'),
    pytest.param(dict(padding_mode='replicate', padding=0), id='no padding'),
]


@pytest.mark.parametrize('make_block', BLOCKS)
@pytest.mark.parametrize('geometry', GEOMETRIES)
class TestBlock:
    def make(self, randomise, make_block, geometry, quantization=PER_CHANNEL):
        return randomise(make_block(8, 8, quantization=quantization, **geometry)).double()

    @pytest.mark.parametrize('granularity', ['per-channel', 'per-tensor'])
    def test_is_the_deploy_convolution_of_rounded_tensors(self, randomise, make_block, geometry, granularity):
        block = self.make(randomise, make_block, geometry, dict(granularity=granularity))
        x = torch.randn(4, 8, 11, 10, dtype=torch.float64)
        found = block(x)
        deployed = copy.deepcopy(block)
        deployed.switch_to_deploy()
        kernel = deployed.branch_reparam.weight.data
        absmax = kernel.abs().amax((1, 2, 3), keepdim=True) if granularity == 'per-channel' else kernel.abs().max()
        deployed.branch_reparam.weight.data = (kernel / absmax * 127).round() * absmax / 127
        scale = (x.max() - x.min()) / 255
        zero_point = (-x.min() / scale).round()
        on_grid = (((x / scale).round() + zero_point).clamp(0, 255) - zero_point) * scale
        torch.testing.assert_close(found, deployed(on_grid), atol=1e-5, rtol=0)
        assert (deployed(on_grid) - deployed(x)).abs().max() > 1e-3

    def test_switched_off_it_is_the_ordinary_block(self, randomise, make_block, geometry):
        block = self.make(randomise, make_block, geometry)
        ordinary = BLOCKS[make_block](8, 8, **geometry).double().eval()
        ordinary.load_state_dict({k: v for k, v in block.state_dict().items() if 'input_quantizer' not in k})
        x = torch.randn(4, 8, 9, 9, dtype=torch.float64)
        set_fake_quantization(block, enabled=False)
        assert torch.equal(block(x), ordinary(x))  # in train mode, the statistics being fixed
        set_fake_quantization(block, enabled=True)
        error = (block(x) - ordinary(x)).abs()
        assert 1e-4 < error.max() < 0.05 * ordinary(x).abs().max()

    def test_switch_gives_the_unrounded_plain_form(self, randomise, make_block, geometry):
        block = self.make(randomise, make_block, geometry)
        x = torch.randn(4, 8, 9, 9, dtype=torch.float64)
        block(x)
        switched = copy.deepcopy(block)
        switched.switch_to_deploy()
        plain = BLOCKS[make_block](8, 8, deploy=True, **geometry).double()
        assert set(switched.state_dict()) == set(plain.state_dict())
        set_fake_quantization(block, enabled=False)
        torch.testing.assert_close(switched(x), block(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize('make_block', BLOCKS)
@pytest.mark.parametrize('ranges', ['observed', 'learned'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_gradient_reaches_every_parameter_and_no_statistic_moves(randomise, make_block, ranges, with_cp):
    block = randomise(
        make_block(4, 4, with_cp=with_cp, se_cfg=dict(ratio=2, divisor=1), quantization=dict(ranges=ranges))
    )
    block.train()
    statistics = {key: value.clone() for key, value in block.state_dict().items() if 'running' in key or 'num_' in key}
    assert statistics
    block(torch.randn(2, 4, 8, 8))
    block(torch.randn(2, 4, 8, 8) * 0.5).square().sum().backward()
    for name, param in block.named_parameters():
        assert param.grad is not None, name
        assert param.grad.isfinite().all(), name
        assert name == 'input_quantizer.min_value' or param.grad.abs().max() > 0, name
    assert ('input_quantizer.max_value' in dict(block.named_parameters())) is (ranges == 'learned')
    for key, value in statistics.items():
        assert torch.equal(block.state_dict()[key], value), key


def test_gradient_of_the_branches_is_that_of_the_rounded_convolution(randomise):
    """Straight through: what reaches a branch is the equivalent kernel's gradient by the chain rule."""
    block = randomise(QuantizationAwareBlock(4, 4, act_cfg=None, quantization=PER_TENSOR)).double()
    x, weights = torch.randn(2, 4, 6, 6).double(), torch.randn(2, 4, 6, 6).double()
    (block(x) * weights).sum().backward()
    found = {name: param.grad.clone() for name, param in block.named_parameters()}
    block.zero_grad()
    kernel, bias = block.get_equivalent_kernel_bias()
    with torch.no_grad():
        rounded = fake_quantize_kernel(kernel, per_channel=False).requires_grad_()
        on_grid = block.input_quantizer.eval()(x)
    grad = torch.autograd.grad((F.conv2d(on_grid, rounded, padding=1) * weights).sum(), rounded)[0]
    torch.autograd.backward([kernel, bias], [grad, weights.sum((0, 2, 3))])
    for name, param in block.named_parameters():
        torch.testing.assert_close(found[name], param.grad, atol=1e-8, rtol=1e-6)


def test_recomputation_observes_once_and_gives_the_same_gradient(randomise):
    plain = randomise(QuantizationAwareBlock(4, 4, quantization=dict(momentum=0.5)))
    recomputing = copy.deepcopy(plain)
    recomputing.with_cp = True
    for x in (torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8) * 3):
        for block in (plain, recomputing):
            block(x).square().sum().backward()
    assert plain.input_quantizer.state_dict() == recomputing.input_quantizer.state_dict()
    for first, second in zip(plain.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


def test_backbone_freezes_stages_and_computes_under_autocast(randomise):
    model = make_calibrated(randomise, dict(frozen_stages=1)).train()
    ranges = get_activation_ranges(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = model(make_batches(1)[0])[0]
    out.float().square().mean().backward()
    after = get_activation_ranges(model)
    assert list(after) == [
        *('stem', 'stage_1.0', 'stage_1.1'),
        *('stage_2.0', 'stage_2.1'),
    ]
    moved = {name for name, value in after.items() if value != ranges[name]}
    assert moved == {'stage_2.0', 'stage_2.1'}
    assert all(p.grad is None for p in model.stage_1.parameters())
    assert all(p.grad.isfinite().all() for p in model.stage_2.parameters())
    convs = {name for name, m in reparameterize(model).named_modules() if isinstance(m, nn.Conv2d)}
    assert {f'{name}.branch_reparam' for name in after} == convs


def test_calibration_is_the_mean_over_batches_of_the_float_model(randomise):
    model = randomise(build_backbone(TINY_BACKBONE | dict(quantization=PER_TENSOR))).train()
    batches = make_batches()
    assert calibrate_activation_ranges(model, iter(batches)) == 3
    assert model.training
    stem = model.stem.input_quantizer
    assert stem.min_value.item() == pytest.approx(np.mean([batch.min().item() for batch in batches]), rel=1e-5)
    ordinary = build_backbone(TINY_BACKBONE).eval()
    ordinary.load_state_dict({k: v for k, v in model.state_dict().items() if 'input_quantizer' not in k})
    features = [ordinary.stage_1(ordinary.stem(batch)) for batch in batches]
    expected = np.mean([feature.max().item() for feature in features])
    assert get_activation_ranges(model)['stage_2.0'] == (0, pytest.approx(expected, rel=1e-5))
    with pytest.raises(ValueError, match='needs at least one batch, got none'):
        calibrate_activation_ranges(model, [])


def test_errors_name_what_is_wrong(randomise, tmp_path):
    for settings, message in (
        (
            dict(granularity='per-row'),
            "granularity of quantization must be one of per-tensor, per-channel, got 'per-row'",
        ),
        (dict(ranges='fixed'), "ranges of quantization must be one of observed, learned, got 'fixed'"),
        (dict(momentum=0), 'momentum of quantization must be above 0 and at most 1, got 0'),
        (dict(bits=4), "keys of quantization must be among granularity, ranges, momentum, got 'bits'"),
    ):
        with pytest.raises(ValueError, match=message):
            build_backbone(TINY_BACKBONE | dict(quantization=settings))
    with pytest.raises(TypeError, match=r"quantization must be a dict such as .* got 'int8'"):
        build_backbone(TINY_BACKBONE | dict(quantization='int8'))
    with pytest.raises(ValueError, match='quantization is trained in train form and needs deploy=False'):
        build_backbone(TINY_BACKBONE | dict(deploy=True, quantization=PER_TENSOR))
    with pytest.raises(ValueError, match='stem.input_quantizer has observed no input yet'):
        get_activation_ranges(build_backbone(TINY_BACKBONE | dict(quantization=PER_TENSOR)))
    assert get_activation_ranges(build_backbone(TINY_BACKBONE)) == {}
    with pytest.raises(ValueError, match='num_calibration_batches must be at least 1, got 0'):
        QuantizationAwareHook(num_calibration_batches=0)
    with pytest.raises(ValueError, match='freeze_ranges_after must be a number of epochs or None, got -1'):
        QuantizationAwareHook(freeze_ranges_after=-1)
    with pytest.raises(ValueError, match='the model has no quantizer; give the backbone quantization'):
        make_runner(tmp_path, [QuantizationAwareHook()]).train()


def test_state_dicts_of_other_forms_are_refused(randomise, tmp_path):
    trained = make_calibrated(randomise)
    with pytest.raises(CheckpointFormError, match=r'is of quantization-aware training \(it has stem.input_quantizer'):
        build_backbone(TINY_BACKBONE).load_state_dict(trained.state_dict())
    with pytest.raises(CheckpointFormError, match='is in train form'):
        build_backbone(TINY_BACKBONE | dict(deploy=True)).load_state_dict(trained.state_dict())
    with pytest.raises(CheckpointFormError, match='is in deploy form'):
        build_backbone(TINY_BACKBONE | dict(quantization=PER_TENSOR)).load_state_dict(
            reparameterize(trained).state_dict(), strict=False
        )
    # an ordinary checkpoint: to start from, but nothing to test
    ordinary = build_backbone(TINY_BACKBONE)
    torch.save(ordinary.state_dict(), tmp_path / 'train.pth')
    missing = trained.load_state_dict(ordinary.state_dict(), strict=False).missing_keys
    assert missing == [f'{name}.{value}' for name in find_quantizers(trained) for value in ('min_value', 'max_value')]
    with pytest.raises(CheckpointError, match='is not of quantization-aware training, and the config is'):
        load_weights(trained, read_checkpoint(tmp_path / 'train.pth'))


class Record(Hook):
    """Keeps the model as training starts, and its ranges after each epoch."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        self.start, self.ranges = copy.deepcopy(runner.model).eval(), [get_activation_ranges(runner.model)]

    def after_train_epoch(self, runner: Runner) -> None:
        self.ranges.append(get_activation_ranges(runner.model))


@pytest.fixture(scope='module')
def ordinary_checkpoint(randomise, tmp_path_factory):
    model = randomise(build_classifier(make_model_config()))
    path = tmp_path_factory.mktemp('ordinary') / 'train.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.mark.parametrize('ranges', ['observed', 'learned'])
def test_training_from_file_to_file(tmp_path, ordinary_checkpoint, ranges):
    """An ordinary checkpoint -> observed, trained and resumed by the Runner -> a deploy-form file."""
    backbone = dict(quantization=dict(granularity='per-channel', ranges=ranges, momentum=0.1))
    hooks = [QuantizationAwareHook(num_calibration_batches=2, freeze_ranges_after=1), record := Record()]
    runner = make_runner(tmp_path / 'qat', hooks, backbone, load_from=str(ordinary_checkpoint))
    runner.train()
    start = build_classifier(make_model_config()).eval()
    start.load_state_dict(torch.load(ordinary_checkpoint)['state_dict'])
    images = torch.randn(4, 3, 32, 32)
    difference = (record.start(images) - start(images)).abs().max()
    assert 1e-5 < difference < 0.02 * start(images).abs().max()
    assert record.ranges[0] != record.ranges[1]
    assert (record.ranges[1] == record.ranges[2]) is (ranges == 'observed')

    cfg = Config(dict(model=make_model_config(backbone), default_scope='mmpretrain'))
    trained = load_classifier(cfg, tmp_path / 'qat/epoch_2.pth')
    assert torch.equal(trained(images), runner.model.eval()(images))
    assert reparameterize_checkpoint(cfg, tmp_path / 'qat/epoch_2.pth', tmp_path / 'deploy.pth').difference < 1e-5
    plain = build_classifier(make_model_config(dict(deploy=True)))
    plain.load_state_dict(torch.load(tmp_path / 'deploy.pth', weights_only=True)['state_dict'])

    # Resumed ranges are not observed anew.
    hooks[1] = resumed = Record()
    runner = make_runner(
        tmp_path / 'qat',
        hooks,
        backbone,
        load_from=str(tmp_path / 'qat/epoch_1.pth'),
        resume=True,
        experiment_name='resumed',
    )
    runner.train()
    assert resumed.ranges[0] == record.ranges[1]
    for first, second in zip(runner.model.state_dict().values(), trained.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ('hook', 'backbone'),
    [
        (QuantizationAwareHook(num_calibration_batches=2), dict(quantization=PER_CHANNEL)),
        (CalibrateInsertedNormsHook(num_batches=2), dict(deploy=True, deploy_norm=dict(type='BN'))),
    ],
    ids=['ranges', 'inserted norms'],
)
def test_a_sampler_that_can_not_begin_twice(tmp_path, hook, backbone):
    """As of iteration-based trainings: what is looked at first must not use it up."""
    dataset = NoiseDataset()
    loader = DataLoader(dataset, batch_size=8, sampler=InfiniteSampler(dataset), collate_fn=pseudo_collate)
    runner = make_runner(
        tmp_path, [hook], backbone, train_dataloader=loader, train_cfg=dict(by_epoch=False, max_iters=6),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
    )  # fmt: skip
    runner.train()
    assert runner.iter == 6


def test_epochs_are_not_counted_in_a_training_by_iterations(tmp_path):
    runner = make_runner(
        tmp_path, [QuantizationAwareHook(freeze_ranges_after=1)], dict(quantization=PER_TENSOR),
        train_cfg=dict(by_epoch=False, max_iters=6),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r'freeze_ranges_after counts epochs, and the training counts iterations'):
        runner.train()


def test_learned_ranges_bear_two_forward_passes_before_a_backward_one(randomise):
    quantizer = ActivationQuantizer(learned=True)
    x = torch.rand(2, 4)
    (quantizer(x).sum() + quantizer(x + 1).sum()).backward()
    assert quantizer.max_value.grad.isfinite()
    assert quantizer.max_value.item() == x.max(), 'the first batch alone sets it'


def test_a_learned_range_of_zero_width(randomise):
    quantizer = ActivationQuantizer(learned=True)
    quantizer(torch.zeros(2, 4))
    x = torch.rand(2, 4, requires_grad=True)
    quantizer(x).sum().backward()
    assert quantizer(x).isfinite().all()
    assert x.grad.isfinite().all()
    assert quantizer.max_value.grad.isfinite()


@pytest.fixture(scope='module')
def start(digits):
    """A config of quantization-aware training that starts from ``small.pth``."""
    cfg = load_config(str(CONFIGS / 'repvgg-a0_digits_qat.py'))
    cfg.model.backbone.arch = load_config(str(SMALL)).model.backbone.arch
    cfg.load_from = str(digits / 'small.pth')
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.quantization.update(num_calibration_batches=4, freeze_ranges_after=None)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        cfg[f'{split}_dataloader'].dataset.data_root = str(digits / 'data/digits')
    return cfg


def round_biases(model: Any) -> Any:
    """As the int8 file has them: whole multiples of the input's step times the kernel's, which training leaves out."""
    model = copy.deepcopy(model)
    for block in (module for module in model.modules() if isinstance(module, RepVGGBlock)):
        kernel, bias = (tensor.detach() for tensor in block.get_equivalent_kernel_bias())
        per_channel = block.quantization.granularity == 'per-channel'
        largest = kernel.abs().amax((1, 2, 3)) if per_channel else kernel.abs().max()
        step = find_uint8_grid(*block.input_quantizer.get_range())[0] * largest / 127
        bias = (bias / step).round() * step
        block.get_equivalent_kernel_bias = lambda kernel=kernel, bias=bias: (kernel, bias)
    return model


@torch.no_grad()
def assert_file_computes_like(model: Any, run_file: Callable[[Tensor], Tensor], cfg: Config) -> float:
    """The file's logits are the fake-quantized model's, but for its rounded biases; returns the file's top-1.

    What is left is the order of sums in float32, which moves a few of the values that lie between two steps of a grid.
    """
    set_fake_quantization(model, enabled=True)
    rounded = round_biases(model)
    batches = list(iterate_samples(cfg, 'test', batch_size=60))
    labels = torch.cat([labels for _, labels in batches])
    images = torch.cat([normalise(model, images) for images, _ in batches])
    found, simulated = run_file(images), rounded(images)
    set_fake_quantization(rounded, enabled=False)
    assert (found - simulated).abs().mean() < 0.03 * (rounded(images) - simulated).abs().mean()
    assert measure_percent(found, model(images)) > 98
    return measure_percent(found, labels)


def test_the_int8_file_is_what_training_showed(start, tmp_path):
    """Per-tensor: training from the config as a user runs it, the switch, ONNX Runtime."""
    pytest.importorskip('onnxruntime.quantization')
    start.dump(tmp_path / 'qat.py')
    succeed('train', 'qat.py', '--work-dir', 'work', cwd=tmp_path)
    (log,) = tmp_path.glob('work/*/vis_data/scalars.json')
    shown = json.loads(log.read_text().splitlines()[-1])['accuracy/top1']
    assert shown > 90  # it has learnt something, or any file would agree

    checkpoint, out = tmp_path / 'work/epoch_1.pth', tmp_path / 'int8.onnx'
    model = build_model(start, deploy=False)
    load_weights(model, read_checkpoint(checkpoint))
    assert reparameterize_checkpoint(start, checkpoint, tmp_path / 'deploy.pth').was_trained_for_int8
    with pytest.raises(ValueError, match='is of quantization-aware training: its int8 file has the ranges'):
        analyze(start, checkpoint)
    result = quantize_model(start, checkpoint, out)
    assert (result.granularity, result.reference, result.num_calibration) == ('per-tensor', 'training', 0)
    assert result.accuracy_reference == pytest.approx(shown, abs=1e-4)
    assert result.agreement > 98
    assert assert_file_computes_like(model, load_exported(out), start) == pytest.approx(shown, abs=0.5)
    with pytest.raises(ValueError, match='`granularity` must be per-tensor, for which the model was trained'):
        quantize_model(start, checkpoint, tmp_path / 'refused.onnx', QuantizationSettings('per-channel'))
    assert not (tmp_path / 'refused.onnx').exists()


def test_an_ordinary_checkpoint_with_the_config_of_quantization_aware_training(start, tmp_path):
    with pytest.raises(CheckpointError, match=r'is not of quantization-aware training, .* with `load_from=CHECKPOINT`'):
        quantize_model(start, start.load_from, tmp_path / 'int8.onnx')


@pytest.mark.parametrize('quantization', [PER_CHANNEL, PER_CHANNEL | LEARNED], ids=['observed', 'learned'])
def test_onnx_runtime_agrees_per_channel(start, quantization, tmp_path):
    pytest.importorskip('onnxruntime.quantization')
    cfg = copy.deepcopy(start)
    cfg.model.backbone.quantization = quantization
    model = build_model(cfg, deploy=False)
    model.load_state_dict(torch.load(cfg.load_from)['state_dict'], strict=False)
    calibrate_activation_ranges(model, (normalise(model, x) for x, _ in iterate_samples(cfg, 'train', 64)))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'qat.pth')
    assert quantize_model(cfg, tmp_path / 'qat.pth', tmp_path / 'int8.onnx').granularity == 'per-channel'
    assert assert_file_computes_like(model, load_exported(tmp_path / 'int8.onnx'), cfg) > 90


def test_scales_of_batch_norms_are_limited(randomise):
    block = randomise(RepVGGBlock(8, 8)).eval()
    block.branch_norm.running_var[3] = 0
    scale = block.branch_norm.weight.abs() / (block.branch_norm.running_var + 1e-5).sqrt()
    others = block.branch_norm.weight.detach().clone()[:3]
    assert clip_norm_scales(block, 4.0) == 1
    limited = block.branch_norm.weight.abs() / (block.branch_norm.running_var + 1e-5).sqrt()
    assert limited[3].item() == pytest.approx(4 * scale.median().item(), rel=1e-5)
    torch.testing.assert_close(block.branch_norm.weight.detach()[:3], others)
    assert clip_norm_scales(block, 4.0) == 0
    # gains that were trained away do not count
    with torch.no_grad():
        block.branch_3x3.norm.weight[1:] = 1e-6
    before = block.branch_3x3.norm.weight.clone()
    assert clip_norm_scales(block, 4.0) == 0
    assert torch.equal(block.branch_3x3.norm.weight, before)
    block.switch_to_deploy()
    with pytest.raises(ValueError, match='RepVGGBlock has no block in train form'):
        clip_norm_scales(block, 4.0)
    with pytest.raises(ValueError, match='factor must be at least 1, got 0'):
        clip_norm_scales(block, 0)
    with pytest.raises(ValueError, match='clip_scales must be at least 1, or None, got 0'):
        QuantizationAwareHook(clip_scales=0)

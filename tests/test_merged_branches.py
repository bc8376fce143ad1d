"""Merged branches: the same outputs, gradients and statistics as separate ones, with fewer stored activations."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from block_forms import GRID, assert_switch_keeps_function
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmrepvgg import build_backbone, reparameterize
from mmrepvgg.models.blocks import RepVGGBlock
from mmrepvgg.models.merged_branches import MergedBranchesBlock
from mmrepvgg.models.pixel_sums import find_moments

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def make_pair(randomise, out_channels=8, **kwargs):
    """A block with separate branches and one with merged branches and the same weights, float64, in train mode."""
    kwargs = {'in_channels': 8, **kwargs}
    separate = randomise(RepVGGBlock(out_channels=out_channels, **kwargs).double())
    merged = MergedBranchesBlock(out_channels=out_channels, **kwargs).double()
    merged.load_state_dict(separate.state_dict())
    return separate, merged


def step(block, x, seed=1):
    """Outputs, gradients of the input and of the parameters, and the state after one step."""
    x = x.clone().requires_grad_()
    y = block(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(y.dtype))
    gradients = {name: p.grad for name, p in block.named_parameters()}
    return dict(output=y.detach(), input_gradient=x.grad, gradients=gradients, state=block.state_dict())


def make_input(channels=8, dtype=torch.float64):
    return torch.randn(3, channels, 11, 9, dtype=dtype) * 2 + 1


def assert_same_steps(separate, merged, x, atol=1e-10):
    for seed in (1, 2):
        torch.testing.assert_close(step(merged, x, seed), step(separate, x, seed), atol=atol, rtol=0)


@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
@pytest.mark.parametrize('kwargs', GRID, ids=lambda k: '-'.join(str(v) for v in k.values()))
def test_a_step_is_the_same(randomise, kwargs, layout):
    separate, merged = make_pair(randomise, **kwargs)
    assert_same_steps(separate, merged, make_input(kwargs['in_channels']).to(memory_format=layout))
    assert_switch_keeps_function(merged.eval(), make_input(kwargs['in_channels']))


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(padding=0),
        dict(padding=3, padding_mode='circular'),
        dict(padding_mode='reflect', stride=2),
        dict(out_channels=12, groups=4),
        dict(conv_cfg=dict(type='ConvWS')),
        dict(conv_cfg=dict(type='ConvAWS')),
        dict(norm_cfg=dict(type='BN', momentum=None)),
        dict(norm_cfg=dict(type='BN', momentum=0.7, eps=1e-2)),
        dict(norm_cfg=dict(type='BN', affine=False)),
        dict(norm_cfg=dict(type='BN', track_running_stats=False)),
        dict(act_cfg=None, with_cp=True),
        dict(act_cfg=dict(type='SiLU'), se_cfg=dict(ratio=2), se_after_act=True),
    ],
    ids=str,
)
def test_a_step_is_the_same_with_other_settings(randomise, kwargs):
    assert_same_steps(*make_pair(randomise, **kwargs), make_input())


def test_a_step_is_the_same_after_the_geometry_was_changed(randomise):
    pair = make_pair(randomise, out_channels=12, stride=2)
    for block in pair:
        block.branch_3x3.conv.stride, block.branch_3x3.conv.dilation, block.branch_3x3.conv.padding = 1, 2, 2
    assert_same_steps(*pair, make_input())
    for block in pair:
        block.branch_3x3.conv.stride = block.branch_1x1.conv.stride = 2
    assert_same_steps(*pair, make_input())


@pytest.mark.parametrize(
    'kwargs', [dict(), dict(groups=2), dict(stride=2, out_channels=12), dict(conv_cfg=dict(type='ConvAWS'))], ids=str
)
def test_frozen_statistics_make_one_convolution(randomise, kwargs):
    separate, merged = make_pair(randomise, **kwargs)
    for block in (separate, merged):
        for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.eval()
    assert_same_steps(separate, merged, make_input())
    calls = []
    for name, module in merged.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    merged(make_input())
    assert calls == ['act', ''] or calls == ['se_layer', 'act', '']


def test_partly_frozen_statistics(randomise):
    separate, merged = make_pair(randomise)
    for block in (separate, merged):
        block.branch_1x1.norm.eval()
    assert_same_steps(separate, merged, make_input())


@pytest.mark.parametrize('frozen', ['branch_1x1.conv.weight', 'branch_norm.bias', 'branch_1x1.norm.weight'])
def test_frozen_parameters_get_no_gradient(randomise, frozen):
    separate, merged = make_pair(randomise)
    for block in (separate, merged):
        block.get_parameter(frozen).requires_grad_(False)
    assert_same_steps(separate, merged, make_input())


def test_eval_mode_is_that_of_separate_branches(randomise):
    separate, merged = make_pair(randomise)
    x = make_input()
    assert torch.equal(merged.eval()(x), separate.eval()(x))


def test_statistics_survive_a_large_mean():
    """Values with a mean of 1000 deviations: without centring, float32 would lose six digits of the variance."""
    x = torch.randn(4, 6, 20, 20) + 1000
    mean, covariance, count = find_moments(x)
    assert count == 4 * 20 * 20
    torch.testing.assert_close(mean[0], x.double().mean((0, 2, 3)).float())
    expected = torch.cov(x.double().transpose(0, 1).flatten(1), correction=0).float()
    torch.testing.assert_close(covariance[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_float64_as_with_separate_branches(randomise, dtype):
    # without a ReLU, whose mask depends on rounding
    separate, merged = make_pair(randomise, act_cfg=None)
    x = (make_input() + 3).to(dtype).double()  # inside a network the input is in half precision, too
    exact = step(copy.deepcopy(separate), x)
    errors = []
    for block in (separate, merged):
        block = block.float()
        with torch.autocast('cpu', dtype):
            actual = step(block, x.to(dtype))
        assert actual['output'].dtype == dtype
        values = dict(y=(actual['output'], exact['output']), dx=(actual['input_gradient'], exact['input_gradient']))
        values |= {k: (v, exact['gradients'][k]) for k, v in actual['gradients'].items()}
        errors.append({k: ((a.double() - b).norm() / b.norm()).item() for k, (a, b) in values.items()})
    for name, error in errors[0].items():
        assert errors[1][name] < 1.3 * error + 1e-3, name


def test_fewer_activations_are_stored(randomise):
    """Separate: the input, the 3x3 and the 1x1 convolution's outputs, and the sum's ReLU. Merged: one less."""
    stored = []
    for block in make_pair(randomise):
        sizes = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.update({t.untyped_storage().data_ptr(): t.numel()}) or t, lambda t: t
        )
        x = torch.randn(4, 8, 32, 32, dtype=torch.float64, requires_grad=True)
        with hooks:
            y = block(x)
        stored.append(sum(size == x.numel() for size in sizes.values()))
        assert y.shape == x.shape
    assert stored == [4, 3]


def test_a_compiled_step_is_the_same(randomise):
    separate, merged = make_pair(randomise, groups=2)
    x = make_input()
    expected = step(separate, x)
    merged.compile(dynamic=False, fullgraph=True, backend='aot_eager')  # in place: the keys stay
    torch.testing.assert_close(step(merged, x), expected, atol=1e-10, rtol=0)


def test_the_block_can_be_scripted_and_copied(randomise):
    _, merged = make_pair(randomise)
    x = make_input()
    expected = copy.deepcopy(merged).eval()(x)
    assert torch.equal(torch.jit.script(merged.eval())(x), expected)


SYNC = """
    import sys
    import torch
    from mmrepvgg.models.pixel_sums import convolve_centred, find_moments

    def sync(rank, size):
        torch.distributed.init_process_group('gloo', init_method=f'file://{sys.argv[1]}', rank=rank, world_size=size)
        return torch.distributed.group.WORLD

    def step(x, kernel, processes):
        mean, covariance, count = find_moments(x, 2, processes)
        scale = (((kernel @ covariance) * kernel).sum(-1) + 1e-5).rsqrt()
        y = convolve_centred(x, mean, scale.unsqueeze(-1) * kernel, scale.flatten())
        torch.manual_seed(5)
        weight = torch.randn(5, 6, 7, 7, dtype=torch.float64)[part]
        return torch.autograd.grad((y * weight).sum(), [x, kernel])

    rank = int(sys.argv[2])
    torch.manual_seed(0)
    x = torch.randn(5, 8, 7, 7, dtype=torch.float64) * 2 + 1
    kernel = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    part = slice(None)
    dx, dk = step(x.requires_grad_(), kernel, None)
    part = slice(0, 2) if rank == 0 else slice(2, 5)  # batches of different sizes
    processes = sync(rank, 2)
    dx_part, dk_part = step(x.detach()[part].requires_grad_(), kernel, processes)
    torch.distributed.all_reduce(dk_part)
    torch.testing.assert_close(dx_part, dx[part], atol=1e-10, rtol=0)
    torch.testing.assert_close(dk_part, dk, atol=1e-10, rtol=0)
"""


def test_statistics_over_processes_are_those_of_one_process_with_all_images(tmp_path):
    command = [sys.executable, '-c', textwrap.dedent(SYNC), str(tmp_path / 'rendezvous')]
    started = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


class TestBackbone:
    CFG = dict(
        type='RepVGG',
        arch=dict(num_blocks=(2, 1), width_factor=(0.25, 0.25), group_layer_map={2: 2}),
        strides=(2, 2),
        dilations=(1, 1),
        out_indices=(1,),
    )

    def test_only_the_computation_is_another(self, randomise):
        separate = randomise(build_backbone(self.CFG)).double()
        merged = build_backbone(self.CFG | dict(branches='merged')).double()
        assert {type(m) for m in merged.modules() if isinstance(m, RepVGGBlock)} == {MergedBranchesBlock}
        merged.load_state_dict(separate.state_dict())
        x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
        for model in (separate, merged):
            model(x)[0].square().sum().backward()
        torch.testing.assert_close(
            [p.grad for p in merged.parameters()], [p.grad for p in separate.parameters()], atol=1e-10, rtol=1e-10
        )
        torch.testing.assert_close(merged.state_dict(), separate.state_dict(), atol=1e-10, rtol=0)
        expected = separate.eval()(x)
        torch.testing.assert_close(reparameterize(merged.eval())(x), expected, atol=1e-10, rtol=0)

    def test_an_average_of_weights_is_the_same(self, randomise):
        model = build_backbone(self.CFG | dict(branches='merged'))
        average = ExponentialMovingAverage(model, momentum=0.5)
        average.update_parameters(model)
        assert type(average.module.stem) is MergedBranchesBlock

    def test_a_deploy_config_may_inherit_the_option(self):
        model = build_backbone(self.CFG | dict(branches='merged', deploy=True))
        assert type(model.stem) is RepVGGBlock

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(branches='fused'), "branches must be one of separate, merged, got 'fused'"),
            (dict(branches='merged', block='QARepVGGBlock'), "is for block='RepVGGBlock' without quantization"),
            (dict(branches='merged', quantization=dict(granularity='per-tensor')), 'leave out branches'),
            (
                dict(branches='merged', norm_cfg=dict(type='GN', num_groups=1)),
                'norm_cfg must be .*, got a GroupNorm; take',
            ),
        ],
    )
    def test_wrong_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            build_backbone(self.CFG | options)

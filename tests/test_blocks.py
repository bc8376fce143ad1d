import copy

import pytest
import torch
import torch.nn.functional as F
from block_forms import GRID, assert_switch_keeps_function
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from mmrepvgg.models.blocks import RepVGGBlock
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.models.fusion import FusionError


def make_block(randomise, in_channels=8, out_channels=8, dtype=torch.float64, **kwargs):
    return randomise(RepVGGBlock(in_channels, out_channels, **kwargs)).to(dtype).eval()


@pytest.mark.parametrize('kwargs', GRID, ids=lambda k: '-'.join(str(v) for v in k.values()))
def test_both_forms_are_the_same_function(randomise, kwargs):
    block = make_block(randomise, **kwargs)
    for size in ((9, 9), (8, 11)):
        assert_switch_keeps_function(block, torch.randn(2, kwargs['in_channels'], *size, dtype=torch.float64))


def test_both_forms_are_the_same_function_in_float32(randomise):
    block = make_block(randomise, 64, 64, dtype=torch.float32, se_cfg=dict(ratio=16))
    assert_switch_keeps_function(block, torch.randn(2, 64, 14, 14), atol=2e-5)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(('padding', 'dilation'), [(1, 1), (2, 2), (2, 1), (0, 1), (1, 2), (0, 2), (3, 1)])
@pytest.mark.parametrize('mode', ['zeros', 'reflect', 'replicate', 'circular'])
def test_padding_is_the_same_in_both_forms(randomise, mode, padding, dilation, stride):
    block = make_block(randomise, padding_mode=mode, padding=padding, dilation=dilation, stride=stride)
    x = torch.randn(2, 8, 10, 9, dtype=torch.float64)
    switched = assert_switch_keeps_function(block, x)
    assert switched.branch_reparam.padding_mode == mode
    if mode != 'zeros' and padding == dilation == 1:
        zeros = copy.deepcopy(block)
        zeros.branch_3x3.conv.padding_mode = 'zeros'
        assert not torch.allclose(zeros(x), block(x))


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('conv', ['Conv', 'ConvWS', 'ConvAWS'])
def test_convolutions_are_fused_with_the_weights_that_they_use(randomise, conv, stride):
    block = make_block(randomise, conv_cfg=dict(type=conv), stride=stride)
    if conv == 'ConvAWS':
        for branch in (block.branch_3x3, block.branch_1x1):
            branch.conv.weight_gamma.uniform_(0.5, 2)
            branch.conv.weight_beta.uniform_(-1, 1)
    if conv != 'Conv':
        # standardising a 1x1 kernel of one input channel is 0 / 0; use several
        assert block.branch_1x1.conv.weight.shape[1] > 1
    assert_switch_keeps_function(block, torch.randn(2, 8, 9, 9, dtype=torch.float64))


def test_a_convolution_of_unknown_function_is_refused(randomise):
    block = make_block(randomise, conv_cfg=dict(type='Conv2dAdaptivePadding'))
    with pytest.raises(FusionError, match='cannot fuse Conv2dAdaptivePadding: .* allowed are Conv2d, ConvWS'):
        block.switch_to_deploy()
    assert not block.deploy
    block(torch.randn(1, 8, 9, 9, dtype=torch.float64))


def test_a_parametrized_convolution_is_fused_with_its_effective_weight(randomise):
    block = make_block(randomise)
    torch.nn.utils.parametrizations.weight_norm(block.branch_3x3.conv)
    block.branch_3x3.conv.parametrizations.weight.original0.data *= 3
    assert_switch_keeps_function(block, torch.randn(2, 8, 9, 9, dtype=torch.float64))


class _RegisteredBatchNorm(nn.BatchNorm2d):
    """A user's subclass, with a forward of its own that changes nothing in eval mode."""

    def forward(self, x):
        return super().forward(x)


@pytest.fixture
def registered_norm():
    MODELS.register_module(name='TestBatchNorm', module=_RegisteredBatchNorm)
    yield 'TestBatchNorm'
    MODELS.module_dict.pop('TestBatchNorm')


def test_subclasses_and_options_of_batch_norm(randomise, registered_norm):
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    for norm_cfg in (
        dict(type='BN2d'),
        dict(type='BN', affine=False),
        dict(type='BN', eps=0.1, momentum=None),
        dict(type=registered_norm),
    ):
        assert_switch_keeps_function(make_block(randomise, norm_cfg=norm_cfg), x)


def test_sync_batch_norm_is_fused_as_it_is_and_reverted(randomise):
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    block = make_block(randomise, norm_cfg=dict(type='SyncBN'))
    reverted = revert_sync_batchnorm(copy.deepcopy(block))
    expected = reverted(x)
    for each in (block, reverted):
        each.switch_to_deploy()
        torch.testing.assert_close(each(x), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ('norm_cfg', 'message'),
    [
        (dict(type='BN', track_running_stats=False), 'without running statistics'),
        (dict(type='GN', num_groups=2), 'cannot fuse GroupNorm: its statistics depend on the input'),
        (dict(type='IN2d'), 'cannot fuse InstanceNorm2d'),
    ],
)
def test_norms_that_depend_on_the_input_train_but_are_refused_by_the_switch(randomise, norm_cfg, message):
    block = make_block(randomise, norm_cfg=norm_cfg)
    before = {key: value.clone() for key, value in block.state_dict().items()}
    with pytest.raises(FusionError, match=message):
        block.switch_to_deploy()
    assert not block.deploy
    torch.testing.assert_close(dict(block.state_dict()), before, atol=0, rtol=0)
    block(torch.randn(2, 8, 9, 9, dtype=torch.float64)).sum().backward()


def test_a_batch_norm_with_a_function_of_its_own_is_refused(randomise):
    class ActivatedNorm(nn.BatchNorm2d):
        def forward(self, x):
            return F.relu(super().forward(x))

    block = make_block(randomise)
    block.branch_1x1.norm = ActivatedNorm(8).double().eval()
    with pytest.raises(FusionError, match='cannot fuse ActivatedNorm: its forward does more'):
        block.switch_to_deploy()


def test_no_activation(randomise):
    block = make_block(randomise, act_cfg=None)
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    assert (block(x) < 0).any()
    assert_switch_keeps_function(block, x)


def test_the_squeeze_excite_layer_stays_and_acts_in_deploy_form(randomise):
    block = make_block(randomise, se_cfg=dict(ratio=2, divisor=1))
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    switched = assert_switch_keeps_function(block, x)
    with torch.no_grad():
        without = switched.act(switched.branch_reparam(x))
        assert (switched(x) - without).abs().max() > 0.1


def test_the_kernel_is_differentiable(randomise):
    block = make_block(randomise, 8, 8, groups=2)
    kernel, bias = block.get_equivalent_kernel_bias()
    assert kernel.shape == (8, 4, 3, 3)
    assert bias.shape == (8,)
    (kernel.square().sum() + bias.square().sum()).backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name

    # the same function: gradients with respect to the input agree
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64, requires_grad=True)
    kernel, bias = block.get_equivalent_kernel_bias()
    y = F.relu(F.conv2d(x, kernel, bias, padding=1, groups=2))
    torch.testing.assert_close(y, block(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_fusion_rounds_once(randomise, dtype):
    block = make_block(randomise, dtype=dtype)
    kernel, bias = block.get_equivalent_kernel_bias()
    exact_kernel, exact_bias = copy.deepcopy(block).double().get_equivalent_kernel_bias()
    assert kernel.dtype == bias.dtype == dtype
    assert torch.equal(kernel, exact_kernel.to(dtype))
    assert torch.equal(bias, exact_bias.to(dtype))


def test_a_kernel_beyond_float16_is_refused(randomise):
    block = make_block(randomise, dtype=torch.float32)
    block.branch_3x3.norm.running_var.fill_(1e-12)
    block.branch_3x3.norm.eps = 1e-12
    block.half()
    block.branch_3x3.norm.float()
    block.branch_3x3.norm.running_var.fill_(1e-12)
    with pytest.raises(OverflowError, match='exceeds the range of float16'):
        block.switch_to_deploy()
    assert not block.deploy


def test_a_bias_beyond_float16_is_refused(randomise):
    block = make_block(randomise, dtype=torch.float32)
    block.branch_3x3.norm.running_mean.fill_(1e3)
    block.branch_3x3.norm.running_var.fill_(1e-4)
    block.half()
    assert block.get_equivalent_kernel_bias()[0].isfinite().all()
    with pytest.raises(OverflowError, match='exceeds the range of float16'):
        block.switch_to_deploy()


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_the_switch_keeps_mode_dtype_memory_format_and_random_state(randomise, dtype, training):
    block = make_block(randomise, dtype=dtype, se_cfg=dict(ratio=2)).to(memory_format=torch.channels_last)
    block.train(training)
    state = torch.get_rng_state()
    block.switch_to_deploy()
    assert torch.equal(torch.get_rng_state(), state)
    conv = block.branch_reparam
    assert conv.weight.dtype == conv.bias.dtype == dtype
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(module.training is training for module in block.modules())
    same = conv.weight
    block.switch_to_deploy()
    assert block.branch_reparam.weight is same


def test_the_switched_block_can_be_trained(randomise):
    block = make_block(randomise, se_cfg=dict(ratio=2)).train()
    block.switch_to_deploy()
    assert all(p.requires_grad and p.is_leaf for p in block.parameters())
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    before = block(x).square().mean()
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    before.backward()
    assert all(p.grad is not None for p in block.parameters())
    optimizer.step()
    assert block(x).square().mean() < before


def test_frozen_branches_give_a_frozen_convolution(randomise):
    block = make_block(randomise, se_cfg=dict(ratio=2))
    for branch in (block.branch_3x3, block.branch_1x1, block.branch_norm):
        branch.requires_grad_(False)
    block.switch_to_deploy()
    assert not block.branch_reparam.weight.requires_grad
    assert block.se_layer.conv1.conv.weight.requires_grad


@pytest.mark.parametrize('frozen_norm', [False, True])
def test_checkpointing_updates_statistics_once_and_changes_nothing_else(randomise, frozen_norm):
    x = torch.randn(4, 8, 9, 9, dtype=torch.float64)
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        block = make_block(randomise, with_cp=with_cp).train()
        if frozen_norm:
            block.branch_1x1.norm.eval()
        inputs = x.clone().requires_grad_()
        block(inputs).square().sum().backward()
        gradients = {name: p.grad for name, p in block.named_parameters()}
        results.append((inputs.grad, gradients, dict(block.state_dict())))
        assert block.branch_3x3.norm.num_batches_tracked == 1
        assert all(m.momentum == 0.1 for m in block.modules() if isinstance(m, nn.BatchNorm2d))
    torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=0)


def test_checkpointing_stores_fewer_activations(randomise):
    stored = {}
    for with_cp in (False, True):
        block = make_block(randomise, with_cp=with_cp).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            block(torch.randn(4, 8, 32, 32, dtype=torch.float64, requires_grad=True))
        stored[with_cp] = sum(sizes)
    assert stored[True] < stored[False] / 2


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(stride=0), ValueError, 'stride must be at least 1, got 0'),
        (dict(dilation=1.0), TypeError, 'dilation must be an integer, got 1.0'),
        (dict(padding=-1), ValueError, 'padding must be at least 0'),
        (dict(groups=3), ValueError, 'groups must divide in_channels and out_channels'),
        (dict(padding_mode='same'), ValueError, "padding_mode must be one of zeros, .*, got 'same'"),
        (dict(se_cfg=True), TypeError, 'se_cfg must be a dict or None, got True'),
        (dict(se_cfg=dict(squeeze_channels=0)), ValueError, 'squeeze_channels must be at least 1'),
    ],
)
def test_wrong_arguments_are_refused_with_the_reason(kwargs, error, message):
    with pytest.raises(error, match=message):
        RepVGGBlock(8, 8, **kwargs)


def test_a_bare_block_refuses_weights_of_the_other_form(randomise):
    trained = make_block(randomise)
    deployed = copy.deepcopy(trained)
    deployed.switch_to_deploy()
    with pytest.raises(CheckpointFormError, match='the checkpoint is in train form .* `reparameterize_checkpoint`'):
        deployed.load_state_dict(trained.state_dict(), strict=False)
    with pytest.raises(CheckpointFormError, match='the checkpoint is in deploy form .* the model is in train form'):
        trained.load_state_dict(deployed.state_dict(), strict=False)

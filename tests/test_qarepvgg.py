"""QARepVGG's block: both forms, the official network and its files, and what does not go together with it."""

import copy

import pytest
import torch
from block_forms import GRID, assert_switch_keeps_function
from official_network import PLAIN, fill
from torch import nn

from mmrepvgg import QARepVGGBlock, RepVGG, RepVGGBlock, build_backbone, build_classifier, reparameterize
from mmrepvgg.checkpoints.convert import convert_checkpoint
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.engine.custom_l2 import custom_l2
from mmrepvgg.models.archs import ARCHS
from mmrepvgg.models.forms import CheckpointFormError
from mmrepvgg.models.fusion import FusionError
from studies.any_model.official import QARepVGG


def make_block(randomise, in_channels=8, out_channels=8, dtype=torch.float64, **kwargs):
    return randomise(QARepVGGBlock(in_channels, out_channels, **kwargs)).to(dtype).eval()


def test_the_formula(randomise):
    block = make_block(randomise)
    x = torch.randn(2, 8, 7, 9, dtype=torch.float64)
    y = block.branch_3x3.norm(block.branch_3x3.conv(x)) + block.branch_1x1.conv(x) + x
    torch.testing.assert_close(block(x), block.norm(y).relu())
    assert set(block.state_dict()) == {
        'branch_3x3.conv.weight',
        'branch_1x1.conv.weight',
        *(
            f'{norm}.{name}'
            for norm in ('branch_3x3.norm', 'norm')
            for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
        ),
    }


@pytest.mark.parametrize('kwargs', GRID, ids=lambda k: '-'.join(str(v) for v in k.values()))
def test_both_forms_are_the_same_function(randomise, kwargs):
    block = make_block(randomise, **kwargs)
    for size in ((9, 9), (8, 11)):
        assert_switch_keeps_function(block, torch.randn(2, kwargs['in_channels'], *size, dtype=torch.float64))


def test_both_forms_are_the_same_function_in_float32(randomise):
    block = make_block(randomise, 64, 64, dtype=torch.float32, se_cfg=dict(ratio=16))
    assert_switch_keeps_function(block, torch.randn(2, 64, 14, 14), atol=2e-5)


@pytest.mark.parametrize('se_after_act', [False, True])
def test_se_after_the_last_norm_is_kept(randomise, se_after_act):
    block = make_block(randomise, se_cfg=dict(ratio=2, divisor=1), se_after_act=se_after_act)
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    switched = assert_switch_keeps_function(block, x)
    without = copy.deepcopy(switched)
    without.se_layer = nn.Identity()
    assert not torch.allclose(without(x), switched(x))


@pytest.mark.parametrize(('padding', 'dilation'), [(1, 1), (2, 1), (0, 1), (1, 2)])
@pytest.mark.parametrize('mode', ['zeros', 'reflect'])
def test_padding(randomise, mode, padding, dilation):
    block = make_block(randomise, padding_mode=mode, padding=padding, dilation=dilation, stride=2)
    assert_switch_keeps_function(block, torch.randn(2, 8, 10, 9, dtype=torch.float64))


@pytest.mark.parametrize('options', [dict(conv_cfg=dict(type='ConvWS')), dict(norm_cfg=dict(type='SyncBN'))])
def test_other_layers(randomise, options):
    block = make_block(randomise, **options)
    if 'norm_cfg' in options:  # SyncBatchNorm runs on GPUs only
        assert isinstance(block.norm, nn.SyncBatchNorm)
        block.switch_to_deploy()
    else:
        assert_switch_keeps_function(block, torch.randn(2, 8, 9, 9, dtype=torch.float64))


def test_a_norm_that_depends_on_the_input_is_refused(randomise):
    block = make_block(randomise, norm_cfg=dict(type='GN', num_groups=2))
    with pytest.raises(FusionError, match='cannot fuse GroupNorm'):
        block.switch_to_deploy()
    assert not block.deploy


def test_the_equivalent_kernel_is_differentiable(randomise):
    block = make_block(randomise)
    kernel, bias = block.get_equivalent_kernel_bias()
    (kernel.square().sum() + bias.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_recomputing_changes_neither_gradients_nor_statistics(randomise):
    block = make_block(randomise).train()
    other = copy.deepcopy(block)
    other.with_cp = True
    x = torch.randn(4, 8, 6, 6, dtype=torch.float64)
    for each in (block, other):
        each(x).square().sum().backward()
    for one, two in zip(block.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    torch.testing.assert_close(dict(other.state_dict()), dict(block.state_dict()))
    assert other.norm.num_batches_tracked == 1


def test_scripting(randomise):
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    block = make_block(randomise)
    torch.testing.assert_close(torch.jit.script(block)(x), block(x))


@pytest.mark.parametrize('arch', ARCHS)
def test_every_arch_in_both_forms(arch, randomise):
    torch.manual_seed(0)
    # a quarter of the width: the groups, blocks and SE layers are the arch's
    backbone = randomise(build_backbone(dict(type='RepVGG', arch=arch, block='QARepVGGBlock', base_channels=16))).eval()
    assert all(type(m) is QARepVGGBlock for m in backbone.modules() if isinstance(m, RepVGGBlock))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (expected,) = backbone(x)
        (actual,) = reparameterize(backbone)(x)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_deploy_keys_are_those_of_repvgg():
    plain, made = (RepVGG('A0', deploy=True, block=block) for block in ('RepVGGBlock', 'QARepVGGBlock'))
    assert plain.state_dict().keys() == made.state_dict().keys()
    plain.load_state_dict(made.state_dict())


def test_an_unknown_block():
    with pytest.raises(ValueError, match="block must be one of RepVGGBlock, QARepVGGBlock, got 'QABlock'"):
        RepVGG('A0', block='QABlock')


def test_the_official_network_and_its_files(tmp_path):
    official = fill(QARepVGG(PLAIN, 5))
    torch.save(official.state_dict(), tmp_path / 'official.pth')
    convert_checkpoint(tmp_path / 'official.pth', tmp_path / 'ours.pth')
    arch = dict(num_blocks=PLAIN.num_blocks, width_factor=PLAIN.width_factor, group_layer_map=PLAIN.group_layer_map)
    ours = build_classifier(
        dict(
            type='mmrepvgg.ImageClassifier',
            backbone=dict(type='mmrepvgg.RepVGG', arch=arch, block='QARepVGGBlock'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5),
        )
    ).eval()
    ours.load_state_dict(read_checkpoint(tmp_path / 'ours.pth').state_dict)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = official(x)
        assert (ours(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
        switched = reparameterize(ours)(x)
    assert (switched - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_weights_of_the_other_block_are_refused_whole():
    plain, made = (RepVGG('A0', block=block) for block in ('RepVGGBlock', 'QARepVGGBlock'))
    before = {key: value.clone() for key, value in made.state_dict().items()}
    with pytest.raises(CheckpointFormError, match=r'has RepVGG blocks \(it has stem.branch_1x1.norm.* use a repvgg'):
        made.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(dict(made.state_dict()), before, atol=0, rtol=0)
    with pytest.raises(CheckpointFormError, match=r'has QARepVGG blocks \(it has stem.norm.* use a qarepvgg config'):
        plain.load_state_dict(made.state_dict(), strict=False)


def test_custom_l2_is_not_for_this_block(randomise):
    with pytest.raises(ValueError, match='defined for the two batch norms of a RepVGGBlock, got a QARepVGGBlock'):
        custom_l2(make_block(randomise))

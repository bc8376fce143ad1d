"""Same weights, same outputs as the implementations from which users come."""

import re

import pytest
import timm
import torch
from mmpretrain.models.backbones import RepVGG as MMPretrainRepVGG
from narrow_timm import build_narrow_timm

from mmrepvgg import RepVGG
from mmrepvgg.models.archs import ARCHS

# mmpretrain has no RepVGGplus
MMPRETRAIN = [arch for arch in ARCHS if arch != 'L2pse']


@pytest.mark.parametrize('arch', MMPRETRAIN)
def test_mmpretrains_weights_load_strictly_and_give_the_same_output(randomise, arch):
    theirs = randomise(MMPretrainRepVGG(arch, base_channels=8))
    theirs.eval()
    ours = RepVGG(arch, base_channels=8).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (expected,), (actual,) = theirs(x), ours(x)
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
        ours.switch_to_deploy()
        (deployed,) = ours(x)
    assert (deployed - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', MMPRETRAIN)
def test_mmpretrains_keys_and_shapes(arch, deploy):
    with torch.device('meta'):
        theirs, ours = (build(arch, deploy=deploy).state_dict() for build in (MMPretrainRepVGG, RepVGG))
    assert [(key, value.shape) for key, value in ours.items()] == [(key, value.shape) for key, value in theirs.items()]


@pytest.mark.parametrize('arch', ['A0', 'B1g4', 'D2se'])
def test_timms_network_is_the_same_function_in_both_forms(randomise, arch):
    theirs = randomise(build_narrow_timm(f'repvgg_{arch.lower()}', 0)).eval()
    ours = RepVGG(arch, base_channels=32).eval()
    ours.load_state_dict({rename_timm(key): value for key, value in theirs.state_dict().items()}, strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, (actual,) = theirs(x), ours(x)
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
        ours.switch_to_deploy()
        expected = timm.utils.reparameterize_model(theirs)(x)
        (actual,) = ours(x)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def rename_timm(key: str) -> str:
    key = re.sub(r'^stages\.(\d+)', lambda m: f'stage_{int(m[1]) + 1}', key)
    for old, new in (
        ('conv_kxk.conv', 'branch_3x3.conv'),
        ('conv_kxk.bn', 'branch_3x3.norm'),
        ('conv_1x1.conv', 'branch_1x1.conv'),
        ('conv_1x1.bn', 'branch_1x1.norm'),
        ('identity.', 'branch_norm.'),
        ('attn.fc1', 'se_layer.conv1.conv'),
        ('attn.fc2', 'se_layer.conv2.conv'),
    ):
        key = key.replace(old, new)
    return key

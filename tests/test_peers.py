"""Same weights, same outputs as the implementations from which users come."""

import re

import pytest
import timm
import torch
from mmpretrain.models.backbones import RepVGG as MMPretrainRepVGG

from mmrepvgg import RepVGG
from mmrepvgg.models.archs import ARCHS

# mmpretrain has no RepVGGplus
MMPRETRAIN = [arch for arch in ARCHS if arch != 'L2pse']
TIMM = {'A0': 'repvgg_a0', 'A1': 'repvgg_a1', 'B1g4': 'repvgg_b1g4', 'D2se': 'repvgg_d2se'}


@pytest.mark.parametrize('arch', MMPRETRAIN)
def test_mmpretrains_weights_load_strictly_and_give_the_same_output(randomise, arch):
    theirs = randomise(MMPretrainRepVGG(arch))
    theirs.eval()
    ours = RepVGG(arch).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (expected,), (actual,) = theirs(x), ours(x)
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()
        ours.switch_to_deploy()
        (deployed,) = ours(x)
    assert (deployed - expected).abs().max() <= 1e-5 * expected.abs().max()
    deploy_keys = dict(MMPretrainRepVGG(arch, deploy=True).state_dict()) if arch in TIMM else None
    if deploy_keys is not None:
        assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in deploy_keys.items()}


@pytest.mark.parametrize('arch', TIMM)
def test_timms_network_is_the_same_function_in_both_forms(randomise, arch):
    theirs = randomise(timm.create_model(TIMM[arch], num_classes=0, global_pool='')).eval()
    ours = RepVGG(arch).eval()
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

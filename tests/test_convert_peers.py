"""Conversion between systems keeps the function: against the peers' own models, for every arch that they have."""

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from narrow_timm import build_narrow_timm
from official_network import PLAIN, SMALL, fill
from published import NUM_PARAMS
from timm.utils import reparameterize_model
from torch import nn

from mmrepvgg.benchmark.official import OfficialRepVGG
from mmrepvgg.checkpoints.structure import infer_structure
from mmrepvgg.checkpoints.translate import from_ours, recognise, to_ours
from mmrepvgg.models.archs import ARCHS, Arch
from studies.any_model.official import RepVGGPlus

TIMM_ARCHS = {name.removeprefix('repvgg_'): name for name in timm.list_models('repvgg_*')}

# Whole archs compute at an eighth of their width; at full width they have shapes alone.
NARROW = 8


def build_classifier(backbone: dict, num_classes: int, width: int) -> nn.Module:
    """A classifier without weights."""
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=width)
    neck = dict(type='GlobalAveragePooling')
    with torch.device('meta'):
        return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)).eval()


def get_width(arch: str, base_channels: int = 64) -> int:
    """Channels of the last stage."""
    return int(8 * base_channels * ARCHS[arch].width_factor[-1])


def build_ours(structure) -> nn.Module:
    """This project's classifier for a structure."""
    backbone = dict(type='mmrepvgg.RepVGG', arch=structure.arch, deploy=structure.form == 'deploy')
    return build_classifier(backbone, structure.num_classes, structure.widths[-1])


@torch.no_grad()
def assert_same_function(weights, expected, x, tolerance=1e-5):
    """Load strictly into this project's model and compare outputs, relative to the largest."""
    model = build_ours(infer_structure(weights))
    model.load_state_dict(weights, strict=True, assign=True)
    assert expected.abs().max() > 0.1
    assert (model(x) - expected).abs().max() <= tolerance * expected.abs().max()


def assert_same_tensors(found, expected):
    """The very tensors: nothing is lost, changed or copied."""
    assert found.keys() == expected.keys()
    assert all(found[key] is expected[key] for key in expected)


def make_input(size=32, dtype=torch.float32):
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


# ---------------------------------------------------------------------------------------------- peers' models


@pytest.mark.parametrize('arch', [name for name in ARCHS if name.lower() in TIMM_ARCHS])
def test_timms_archs_are_recognised(arch):
    with torch.device('meta'):
        theirs = timm.create_model(TIMM_ARCHS[arch.lower()], num_classes=10).state_dict()
    ours, structure = convert_timm(theirs)
    assert (structure.arch, structure.form, structure.num_classes) == (arch, 'train', 10)
    official = from_ours(ours, 'official')
    assert_same_tensors(to_ours(official, recognise(official, 'torch').system)[0], ours)


@pytest.mark.parametrize('arch', [name for name in ARCHS if name.lower() in TIMM_ARCHS])
@torch.no_grad()
def test_timms_function(arch):
    peer, x = fill(build_narrow_timm(TIMM_ARCHS[arch.lower()], 10)), make_input()
    for form in ('train', 'deploy'):
        if form == 'deploy':
            peer = reparameterize_model(peer, inplace=True)
        ours, structure = convert_timm(peer.state_dict())
        assert structure.form == form
        assert_same_function(ours, peer(x), x)


def convert_timm(theirs):
    """To our keys, back again, and what structure they show."""
    assert recognise(theirs, 'torch').system == 'timm'
    ours, dropped = to_ours(theirs, 'timm')
    assert not dropped
    assert_same_tensors(from_ours(ours, 'timm'), theirs)
    return ours, infer_structure(ours)


@pytest.mark.parametrize('arch', [name for name in ARCHS if name != 'L2pse'])
def test_mmpretrains_archs_are_recognised(arch):
    for form in ('train', 'deploy'):
        peer = build_classifier(dict(type='mmpretrain.RepVGG', arch=arch, deploy=form == 'deploy'), 10, get_width(arch))
        theirs = peer.state_dict()
        assert recognise(theirs, 'torch').system == 'mmrepvgg'  # the same keys
        ours, _ = to_ours(theirs, 'mmpretrain')
        assert_same_tensors(ours, theirs)
        structure = infer_structure(ours)
        assert structure.form == form
        assert structure.arch == arch
        model = build_ours(structure)
        assert {key: value.shape for key, value in model.state_dict().items()} == {
            key: value.shape for key, value in theirs.items()
        }


@pytest.mark.parametrize('arch', [name for name in ARCHS if name != 'L2pse'])
@torch.no_grad()
def test_mmpretrains_function(arch):
    backbone = dict(type='mmpretrain.RepVGG', arch=arch, base_channels=NARROW)
    peer, x = build_classifier(backbone, 10, get_width(arch, NARROW)), make_input()
    fill(peer.to_empty(device='cpu'))
    expected = peer(x)
    assert_same_function(to_ours(peer.state_dict(), 'mmpretrain')[0], expected, x)
    peer.backbone.switch_to_deploy()
    # its deploy form leaves the SE out, so what it computed in train form is what counts
    assert_same_function(to_ours(peer.state_dict(), 'mmpretrain')[0], expected, x, tolerance=1e-4)


# ---------------------------------------------------------------------------------------- official layouts


@pytest.mark.parametrize('deploy', [False, True], ids=['train', 'deploy'])
@pytest.mark.parametrize('arch', [SMALL, PLAIN], ids=['se-groups', 'plain'])
@torch.no_grad()
def test_official_function(arch, deploy):
    peer = fill(OfficialRepVGG(arch, deploy, 5).double())
    x = make_input(dtype=torch.float64)
    ours, _ = to_ours(peer.state_dict(), 'official')
    model = build_ours(infer_structure(ours)).double()
    model.load_state_dict(ours, strict=True, assign=True)
    torch.testing.assert_close(model(x), peer(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize('deploy', [False, True], ids=['train', 'deploy'])
@torch.no_grad()
def test_l2pse_function(deploy):
    small = Arch((8, 14, 24, 1), (0.125, 0.125, 0.0625, 0.046875), se_cfg=dict(ratio=4, divisor=1))
    peer = fill(RepVGGPlus(small, deploy, 5))
    ours, _ = to_ours(peer.state_dict(), 'repvggplus')
    ours = {key: value for key, value in ours.items() if 'aux_heads' not in key}
    x = make_input()
    assert_same_function(ours, peer(x), x)


@pytest.mark.parametrize('arch', [arch for arch in NUM_PARAMS if arch != 'L2pse'])
def test_official_archs_are_recognised(arch):
    for deploy in (False, True):
        with torch.device('meta'):
            peer = OfficialRepVGG(ARCHS[arch], deploy)
        assert sum(p.numel() for p in peer.parameters()) == NUM_PARAMS[arch][deploy]
        theirs = peer.state_dict()
        assert recognise(theirs, 'torch').system == 'official'
        ours, _ = to_ours(theirs, 'official')
        structure = infer_structure(ours)
        assert (structure.arch, structure.num_classes) == (arch, 1000)
        assert build_ours(structure).state_dict().keys() == ours.keys()
        assert from_ours(ours, 'official').keys() == theirs.keys()
        assert to_ours(from_ours(ours, 'timm'), 'timm')[0].keys() == ours.keys()
        if arch == 'D2se':
            assert len(theirs) == (290 if deploy else 985)

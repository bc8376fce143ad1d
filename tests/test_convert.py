"""Conversion between systems: the same function afterwards, and not a tensor lost on the way."""

import json

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from official_network import OfficialRepVGG, QARepVGG, RepVGGPlus, fill
from timm.utils import reparameterize_model
from torch import nn

from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.structure import infer_structure
from mmrepvgg.checkpoints.translate import from_ours, recognise, to_ours
from mmrepvgg.models.archs import ARCHS, Arch

SMALL = Arch((1, 2, 1, 1), (0.125, 0.125, 0.0625, 0.046875), {2: 2}, dict(ratio=4, divisor=1))
PLAIN = Arch((1, 2, 1, 1), (0.125, 0.125, 0.0625, 0.046875))
L2PSE = Arch((8, 14, 24, 1), (2.5, 2.5, 2.5, 5), se_cfg=dict(ratio=4, divisor=1))
SMALL_L2PSE = Arch((8, 14, 24, 1), (0.125, 0.125, 0.0625, 0.046875), se_cfg=dict(ratio=4, divisor=1))
TIMM_ARCHS = {name.removeprefix('repvgg_'): name for name in timm.list_models('repvgg_*')}

# mmpretrain's own arch beside the paper's
YOLOX_PAI = 'yolox-pai-small'

# facts of the papers' networks with 1000 classes: parameters in train form and in deploy form
NUM_PARAMS = {
    'A0': (9_108_968, 8_309_384),
    'A1': (14_092_264, 12_789_864),
    'A2': (28_210_600, 25_499_944),
    'B0': (15_817_960, 14_339_048),
    'B1': (57_415_016, 51_829_480),
    'B1g2': (45_782_376, 41_360_104),
    'B1g4': (39_966_056, 36_125_416),
    'B2': (89_022_376, 80_315_112),
    'B2g2': (70_846_376, 63_956_712),
    'B2g4': (61_758_376, 55_777_512),
    'B3': (123_085_288, 110_960_872),
    'B3g2': (96_911_848, 87_404_776),
    'B3g4': (83_825_128, 75_626_728),
    'D2se': (133_334_836, 120_387_572),
}


def build_classifier(backbone: dict, num_classes: int, width: int) -> nn.Module:
    """A classifier without weights."""
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=width)
    neck = dict(type='GlobalAveragePooling')
    with torch.device('meta'):
        return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)).eval()


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
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


def make_input(size=32, dtype=torch.float32):
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)).to(dtype)


# ---------------------------------------------------------------------------------------------- peers' models


@pytest.mark.parametrize('arch', [name for name in ARCHS if name.lower() in TIMM_ARCHS])
@torch.no_grad()
def test_timm(arch):
    with torch.device('meta'):
        peer = timm.create_model(TIMM_ARCHS[arch.lower()], num_classes=10)
    peer, x = fill(peer.to_empty(device='cpu')), make_input()
    for form in ('train', 'deploy'):
        if form == 'deploy':
            peer = reparameterize_model(peer, inplace=True)
        theirs, expected = peer.state_dict(), peer(x)
        assert recognise(theirs, 'torch').system == 'timm'
        ours, dropped = to_ours(theirs, 'timm')
        structure = infer_structure(ours)
        assert (structure.arch, structure.form, structure.num_classes, dropped) == (arch, form, 10, {})
        assert_same_function(ours, expected, x)
        assert_same_tensors(from_ours(ours, 'timm'), theirs)
        official = from_ours(ours, 'official')
        assert_same_tensors(to_ours(official, recognise(official, 'torch').system)[0], ours)


@pytest.mark.parametrize('arch', [*(name for name in ARCHS if name != 'L2pse'), YOLOX_PAI])
@torch.no_grad()
def test_mmpretrain(arch):
    width = 512 if arch == YOLOX_PAI else int(512 * ARCHS[arch].width_factor[-1])
    peer, x = build_classifier(dict(type='mmpretrain.RepVGG', arch=arch), 10, width), make_input()
    fill(peer.to_empty(device='cpu'))
    expected = peer(x)
    for form in ('train', 'deploy'):
        if form == 'deploy':
            peer.backbone.switch_to_deploy()
        theirs = peer.state_dict()
        assert recognise(theirs, 'torch').system == 'mmrepvgg'  # the same keys
        ours, _ = to_ours(theirs, 'mmpretrain')
        assert_same_tensors(ours, theirs)
        structure = infer_structure(ours)
        assert structure.form == form
        if arch != YOLOX_PAI:
            assert structure.arch == arch
        # its deploy form leaves the SE out, so what it computed in train form is what counts
        assert_same_function(ours, expected, x, tolerance=1e-5 if form == 'train' else 1e-4)


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


@pytest.mark.parametrize('arch', NUM_PARAMS)
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


def test_l2pse_keys():
    with torch.device('meta'):
        peer = RepVGGPlus(L2PSE)
        deploy = RepVGGPlus(L2PSE, deploy=True)
    assert sum(p.numel() for p in peer.parameters()) == 146_062_864
    assert sum(p.numel() for p in deploy.parameters()) == 127_151_960
    theirs = peer.state_dict()
    assert len(theirs) == 1009
    assert recognise(theirs, 'torch').system == 'repvggplus'
    ours, _ = to_ours(theirs, 'repvggplus')
    assert len(ours) == 1009  # mmpretrain's converter makes 762 of them
    structure = infer_structure(ours)
    assert (structure.arch, structure.form, structure.has_aux_heads) == ('L2pse', 'train', True)
    for key, source in {
        'backbone.stage_1.7.branch_3x3.conv.weight': 'stage1.blocks.7.rbr_dense.conv.weight',
        'backbone.stage_3.11.branch_norm.running_mean': 'stage3_first.blocks.11.rbr_identity.running_mean',
        'backbone.stage_3.12.branch_norm.running_mean': 'stage3_second.blocks.0.rbr_identity.running_mean',
        'backbone.stage_3.23.branch_1x1.norm.bias': 'stage3_second.blocks.11.rbr_1x1.bn.bias',
        'backbone.stem.se_layer.conv1.conv.weight': 'stage0.post_se.down.weight',
        'head.fc.bias': 'linear.bias',
        'head.aux_heads.0.conv.weight': 'stage1_aux.0.conv.weight',
        'head.aux_heads.1.norm.running_var': 'stage2_aux.0.bn.running_var',
        'head.aux_heads.2.fc.weight': 'stage3_first_aux.3.weight',
    }.items():
        assert ours[key] is theirs[source]
    assert infer_structure(to_ours(deploy.state_dict(), 'repvggplus')[0]).arch == 'L2pse'


def test_l2pse_files(tmp_path):
    peer = fill(RepVGGPlus(SMALL_L2PSE, num_classes=5))
    torch.save({'model': peer.state_dict()}, tmp_path / 'plus.pth')
    result = convert_checkpoint(tmp_path / 'plus.pth', tmp_path / 'ours.pth')
    assert result.structure.has_aux_heads
    assert result.dropped == {}

    # this project's keys don't say where the SE is; the network does
    convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'back.pth', target='official')
    assert_same_tensors(torch.load(tmp_path / 'back.pth'), peer.state_dict())
    with pytest.raises(CheckpointError, match='timm has no network with squeeze-and-excitation after the activation'):
        convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'timm.pth', target='timm')
    assert not (tmp_path / 'timm.pth').exists()

    result = convert_checkpoint(tmp_path / 'plus.pth', tmp_path / 'bare.pth', drop_aux_heads=True)
    assert not result.structure.has_aux_heads
    (dropped,) = result.dropped.values()
    assert len(dropped) == 3 * 8
    assert read_checkpoint(tmp_path / 'bare.pth').state_dict.keys() == result.weights.keys()


def test_qarepvgg(tmp_path):
    peer = fill(QARepVGG(PLAIN, 5))
    torch.save(peer.state_dict(), tmp_path / 'qa.pth')
    result = convert_checkpoint(tmp_path / 'qa.pth', tmp_path / 'ours.pth')
    assert result.recognition.system == 'qarepvgg'
    assert 'need QARepVGG blocks' in result.note
    ours = read_checkpoint(tmp_path / 'ours.pth').state_dict
    assert len(ours) == len(peer.state_dict())
    assert torch.equal(ours['backbone.stage_2.1.branch_1x1.conv.weight'], peer.stage2[1].rbr_1x1.weight)
    assert torch.equal(ours['backbone.stage_2.1.norm.running_mean'], peer.stage2[1].bn.running_mean)
    with pytest.raises(CheckpointError, match=r'30 of 74 keys have no place in the official .*: backbone\.stem\.norm'):
        convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'official.pth', target='official')

    # its deploy form is plain RepVGG's
    deploy = OfficialRepVGG(PLAIN, True, 5)
    assert to_ours(deploy.state_dict(), 'qarepvgg')[0].keys() == to_ours(deploy.state_dict(), 'official')[0].keys()


# -------------------------------------------------------------------------------------------- containers


@pytest.fixture(scope='module')
def official():
    return fill(OfficialRepVGG(SMALL, num_classes=5)).state_dict()


CONTAINERS = {
    'plain': lambda weights: weights,
    'plain with an epoch': lambda weights: {'epoch': 3, **weights},
    'state_dict': lambda weights: {'state_dict': weights, 'epoch': 3},
    'model': lambda weights: {'model': weights, 'optimizer': {}},
    'ema': lambda weights: {'ema': weights},
    'ema beside': lambda weights: {'state_dict': {}, 'state_dict_ema': weights},
    'DDP': lambda weights: {'state_dict': {f'module.{key}': value for key, value in weights.items()}},
    'averaged': lambda weights: {
        'state_dict': {},
        'ema_state_dict': {'steps': torch.tensor(9), **{f'module.{key}': value for key, value in weights.items()}},
    },
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_containers(container, official, tmp_path):
    torch.save(CONTAINERS[container](official), tmp_path / 'source.pth')
    ema = container in ('ema beside', 'averaged')
    result = convert_checkpoint(tmp_path / 'source.pth', tmp_path / 'ours.pth', ema=ema)
    assert result.recognition.system == 'official'
    expected = {
        'plain with an epoch': {'no tensor': ['epoch']},
        'averaged': {'counters of an averaged model': ['steps']},
    }
    assert result.dropped == expected.get(container, {})
    convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'back.pth', target='official')
    assert_same_tensors(torch.load(tmp_path / 'back.pth'), official)


def test_legacy_torch_file(official, tmp_path):
    torch.save(official, tmp_path / 'source.pth', _use_new_zipfile_serialization=False)
    assert read_translated(tmp_path / 'source.pth').recognition.system == 'official'


def test_runner_checkpoint(official, tmp_path):
    ours, _ = to_ours(official, 'official')
    meta = dict(mmengine_version='0.10.7', dataset_meta=dict(classes=list('abcde')))
    content = {'meta': meta, 'state_dict': ours, 'message_hub': {}, 'optimizer': {}, 'param_schedulers': []}
    torch.save(content, tmp_path / 'epoch_1.pth')
    convert_checkpoint(tmp_path / 'epoch_1.pth', tmp_path / 'timm.safetensors', target='timm')
    convert_checkpoint(tmp_path / 'epoch_1.pth', tmp_path / 'ours.pth')
    assert read_checkpoint(tmp_path / 'ours.pth').meta['dataset_meta'] == meta['dataset_meta']


@pytest.mark.parametrize('target', ['mmrepvgg', 'official', 'timm'])
def test_round_trip_by_safetensors(target, official, tmp_path):
    half = {key: value.half() if value.is_floating_point() else value for key, value in official.items()}
    torch.save(half, tmp_path / 'source.pth')
    convert_checkpoint(tmp_path / 'source.pth', tmp_path / 'middle.safetensors', target=target)
    result = convert_checkpoint(tmp_path / 'middle.safetensors', tmp_path / 'back.safetensors', target='official')
    assert (result.file_format, result.recognition.system) == ('safetensors', target)
    from safetensors import safe_open
    from safetensors.torch import load_file

    assert_same_tensors(load_file(tmp_path / 'back.safetensors'), half)
    if target == 'mmrepvgg':
        with safe_open(tmp_path / 'middle.safetensors', 'pt') as file:
            assert json.loads(file.metadata()['mmrepvgg'])['source_system'] == 'official'


def test_only_the_tensors_are_written(official, tmp_path):
    """A tensor that is a view of a large one does not drag that into the file."""
    flat = torch.zeros(1 << 20)
    views = {key: flat[: value.numel()].view(value.shape) for key, value in official.items()}
    torch.save(views, tmp_path / 'source.pth')
    convert_checkpoint(tmp_path / 'source.pth', tmp_path / 'ours.pth')
    assert (tmp_path / 'ours.pth').stat().st_size < 200_000


def test_backbone_alone(official, tmp_path):
    ours, _ = to_ours(official, 'official')
    bare = {key.removeprefix('backbone.'): value for key, value in ours.items() if not key.startswith('head.')}
    torch.save(bare, tmp_path / 'backbone.pth')
    result = read_translated(tmp_path / 'backbone.pth')
    assert result.structure.num_classes is None
    assert {f'backbone.{key}' for key in bare} == result.weights.keys()


# ------------------------------------------------------------------------------------------------ errors


def spoil(official, **changes):
    """The official weights with some entries replaced, or left out where None."""
    return {key: value for key, value in (official | changes).items() if value is not None}


BAD_WEIGHTS = {
    'unknown key': ({'extra.weight': torch.ones(1)}, r'1 of 104 keys are none of the official .*: extra\.weight'),
    'missing tensor': ({'stage2.0.rbr_dense.bn.bias': None}, r'1 are missing: backbone\.stage_2\.0\.branch_3x3\.norm'),
    'missing SE': ({'stage2.0.se.down.weight': None}, r'stage_2\.0\.se_layer\.conv1\.conv\.weight is missing'),
    'missing identity': (
        {f'stage2.1.rbr_identity.{name}': None for name in ('weight', 'bias', 'running_mean', 'running_var')},
        r'4 are missing: backbone\.stage_2\.1\.branch_norm\.weight',
    ),
    'wrong shape': ({'stage2.0.rbr_1x1.bn.bias': torch.ones(3)}, r'norm\.bias \(3,\) instead of \(16,\)'),
    'flat kernel': ({'stage2.0.rbr_dense.conv.weight': torch.ones(3)}, 'must have 4 dimensions'),
    'impossible groups': ({'stage1.0.rbr_dense.conv.weight': torch.ones(8, 3, 3, 3)}, 'does not fit the 8 channels'),
    'transposed head': ({'linear.weight': torch.ones(24, 5)}, 'give --source paddleclas'),
    'both forms': ({'stage1.0.rbr_reparam.weight': torch.ones(8, 8, 3, 3)}, 'in train form or in deploy form'),
    'leading zero': ({'stage1.00.rbr_dense.conv.weight': torch.ones(8, 8, 3, 3)}, r'stage1\.00'),
    'a gap': ({'stage2.5.rbr_dense.conv.weight': torch.ones(8, 8, 3, 3)}, r'no block before backbone\.stage_2\.5'),
    'huge number': ({f'stage2.{"9" * 5000}.rbr_dense.conv.weight': torch.ones(1)}, '1 of 104 keys are none of'),
}


@pytest.mark.parametrize('case', BAD_WEIGHTS)
def test_bad_weights_are_refused(case, official, tmp_path):
    changes, message = BAD_WEIGHTS[case]
    torch.save(spoil(official, **changes), tmp_path / 'source.pth')
    (tmp_path / 'ours.pth').write_bytes(b'precious')
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(tmp_path / 'source.pth', tmp_path / 'ours.pth')
    assert (tmp_path / 'ours.pth').read_bytes() == b'precious'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['ours.pth', 'source.pth']


def test_all_unknown_keys_are_listed(official):
    extra = {f'extra{i}.weight': torch.ones(1) for i in range(12)}
    with pytest.raises(CheckpointError, match=', '.join(extra)):
        to_ours({**official, **extra}, 'official')


def test_colliding_keys(official, tmp_path):
    ours, _ = to_ours(official, 'official')
    ours['stem.branch_3x3.conv.weight'] = ours['backbone.stem.branch_3x3.conv.weight']
    torch.save(ours, tmp_path / 'source.pth')
    with pytest.raises(CheckpointError, match=r'backbone\.stem\.\S+ and stem\.\S+ are both backbone\.stem'):
        read_translated(tmp_path / 'source.pth')


def test_unknown_systems(official, tmp_path):
    torch.save({'conv1.weight': torch.ones(1)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match=r'no system is known with such keys: conv1\.weight'):
        read_translated(tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match=r"source must be auto or one of official, .*, got 'keras'"):
        read_translated(tmp_path / 'resnet.pth', 'keras')
    with pytest.raises(ValueError, match="target must be one of mmrepvgg, official, timm, got 'keras'"):
        convert_checkpoint(tmp_path / 'resnet.pth', tmp_path / 'x.pth', target='keras')
    with pytest.raises(ValueError, match=r'destination must end in one of \.pth, '):
        convert_checkpoint(tmp_path / 'resnet.pth', tmp_path / 'x.onnx')


def test_the_wrong_system_is_refused(official, tmp_path):
    torch.save(official, tmp_path / 'source.pth')
    with pytest.raises(CheckpointError, match='keys are none of timm; give --source'):
        read_translated(tmp_path / 'source.pth', 'timm')

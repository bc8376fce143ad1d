"""Conversion of files: layouts that no peer model has, containers, and what is refused."""

import json

import pytest
import torch
from official_network import PLAIN, SMALL, Arch, fill

from mmrepvgg.benchmark.official import OfficialRepVGG
from mmrepvgg.checkpoints.convert import convert_checkpoint, read_translated
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.structure import infer_structure
from mmrepvgg.checkpoints.translate import recognise, to_ours
from studies.any_model.official import QARepVGG, RepVGGPlus

L2PSE = Arch((8, 14, 24, 1), (2.5, 2.5, 2.5, 5), se_cfg=dict(ratio=4, divisor=1))
SMALL_L2PSE = Arch((8, 14, 24, 1), (0.125, 0.125, 0.0625, 0.046875), se_cfg=dict(ratio=4, divisor=1))


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


# ------------------------------------------------------------------------------------- RepVGGplus, QARepVGG


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
    assert (structure.is_l2pse, structure.form, structure.has_aux_heads) == (True, 'train', True)
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
    assert infer_structure(to_ours(deploy.state_dict(), 'repvggplus')[0]).is_l2pse


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
    assert "need a qarepvgg config (block='QARepVGGBlock')" in result.note
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
    'transposed head': ({'linear.weight': torch.ones(24, 5)}, 'give `system=paddleclas`'),
    'bias alone': ({'linear.weight': None}, r'no such thing in a RepVGG of these shapes: head\.fc\.bias'),
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
    with pytest.raises(ValueError, match=r"`system` must be auto or one of official, .*, got 'keras'"):
        read_translated(tmp_path / 'resnet.pth', 'keras')
    with pytest.raises(ValueError, match="`target` must be one of mmrepvgg, official, timm, got 'keras'"):
        convert_checkpoint(tmp_path / 'resnet.pth', tmp_path / 'x.pth', target='keras')
    with pytest.raises(ValueError, match=r'`destination` must end in one of \.pth, '):
        convert_checkpoint(tmp_path / 'resnet.pth', tmp_path / 'x.onnx')


def test_the_wrong_system_is_refused(official, tmp_path):
    torch.save(official, tmp_path / 'source.pth')
    with pytest.raises(
        CheckpointError,
        match='keys are none of timm; 103 are as in the official RepVGG repository: give `system=official`',
    ):
        read_translated(tmp_path / 'source.pth', 'timm')


@pytest.mark.parametrize('name', ['source.pth/ours.pth', 'folder.pth', '/proc/ours.pth'])
def test_a_destination_that_can_not_be_written_is_refused_before_all_else(name, tmp_path):
    (tmp_path / 'source.pth').write_bytes(b'not read')
    (tmp_path / 'folder.pth').mkdir()
    with pytest.raises(
        OSError, match=r'can not be written: no file can be made in|is a folder; give the name of a file'
    ):
        convert_checkpoint(tmp_path / 'source.pth', tmp_path / name)


def test_a_safetensors_file_has_the_mode_of_any_new_file(official, tmp_path):
    torch.save(official, tmp_path / 'source.pth')
    convert_checkpoint(tmp_path / 'source.pth', tmp_path / 'ours.safetensors')
    assert (tmp_path / 'ours.safetensors').stat().st_mode == (tmp_path / 'source.pth').stat().st_mode


@pytest.mark.parametrize(
    ('keys', 'title'),
    [
        (
            ['backbone.stem.rbr_dense.conv.weight', 'backbone.ERBlock_2.0.rbr_dense.conv.weight'],
            "YOLOv6's EfficientRep",
        ),
        (['stage0.conv.weight', 'stage1.0.bn.weight', 'linear.weight'], "RepOpt-VGG's target network"),
        (['stage0.conv.weight', 'stage1.0.scale_identity.weight'], r"RepOpt-VGG's network .* \(CSLA\)"),
    ],
)
def test_files_that_are_known_and_not_supported_are_named(keys, title, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({key: torch.zeros(3) for key in keys}, path)
    with pytest.raises(CheckpointError, match=rf'the weights are of {title}.*not supported here'):
        read_translated(path)

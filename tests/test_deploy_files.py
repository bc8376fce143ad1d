"""Checkpoint files in, deploy-form checkpoint files out."""

import copy
import hashlib
import re
import warnings

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tool_runs import run_tool

from mmrepvgg import build_classifier
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint

TINY = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.25, 0.25, 0.25, 0.25], se_cfg=dict(ratio=4, divisor=1))
MODEL = dict(
    type='ImageClassifier',
    backbone=dict(type='mmrepvgg.RepVGG', arch=TINY),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=32), dict(type='PackInputs')]
META = dict(epoch=7, dataset_meta=dict(classes=list('0123456789')), cfg='model = ...', mmengine_version='0.10.7')


@pytest.fixture
def cfg():
    return Config(
        dict(
            model=MODEL,
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True),
            test_dataloader=dict(dataset=dict(type='CustomDataset', pipeline=PIPELINE)),
            default_scope='mmpretrain',
        )
    )


@pytest.fixture
def model(randomise):
    return randomise(build_classifier(MODEL)).eval()


def save(path, state_dict, **others):
    torch.save(dict(state_dict=state_dict, meta=META, **others), path)
    return path


def deployed_outputs(path, x):
    model_cfg = copy.deepcopy(MODEL)
    model_cfg['backbone']['deploy'] = True
    deployed = build_classifier(model_cfg).eval()
    deployed.load_state_dict(torch.load(path, weights_only=True)['state_dict'], strict=True)
    with torch.no_grad():
        return deployed(x)


def test_a_runner_checkpoint(cfg, model, tmp_path):
    source = save(
        tmp_path / 'src.pth', model.state_dict(), optimizer={'state': {}}, message_hub={}, param_schedulers=[]
    )
    destination = tmp_path / 'new' / 'dst.pth'
    result = reparameterize_checkpoint(cfg, source, destination)
    assert 0 < result.difference < 1e-5
    assert result.deploy_params < result.train_params

    # plain torch reads it, without anything of ours imported
    content = torch.load(destination, weights_only=True)
    assert set(content) == {'state_dict', 'meta'}
    record = content['meta'].pop('mmrepvgg')
    assert content['meta'] == META
    assert record['form'] == 'deploy'
    assert record['source_sha256'] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record['max_relative_difference'] == result.difference
    assert all(value.dtype == torch.float32 for value in content['state_dict'].values())
    assert not any('branch_3x3' in key for key in content['state_dict'])

    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(deployed_outputs(destination, x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('form', ['plain', 'ddp', 'half'])
def test_other_containers_of_the_whole_model(cfg, model, tmp_path, form):
    state_dict = model.state_dict()
    if form == 'half':
        state_dict = {key: value.half() if value.is_floating_point() else value for key, value in state_dict.items()}
        model.load_state_dict(state_dict)
    if form == 'ddp':
        state_dict = {f'module.{key}': value for key, value in state_dict.items()}
    torch.save(state_dict, tmp_path / 'src.pth')
    reparameterize_checkpoint(cfg, tmp_path / 'src.pth', tmp_path / 'dst.pth')
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(deployed_outputs(tmp_path / 'dst.pth', x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_backbone_alone_stays_a_backbone(cfg, model, tmp_path, prefix):
    state_dict = {prefix + key: value for key, value in model.backbone.state_dict().items()}
    torch.save(state_dict, tmp_path / 'src.pth')
    reparameterize_checkpoint(cfg, tmp_path / 'src.pth', tmp_path / 'dst.pth')
    written = torch.load(tmp_path / 'dst.pth', weights_only=True)['state_dict']
    expected = copy.deepcopy(model.backbone)
    expected.switch_to_deploy()
    torch.testing.assert_close(
        dict(written), {prefix + key: value for key, value in expected.state_dict().items()}, atol=0, rtol=0
    )


def test_averaged_weights(cfg, model, randomise, tmp_path):
    averaged = randomise(copy.deepcopy(model), seed=1)
    torch.save({'state_dict': model.state_dict(), 'state_dict_ema': averaged.state_dict()}, tmp_path / 'src.pth')
    x = torch.randn(2, 3, 32, 32)
    for ema, source in ((True, averaged), (False, model)):
        reparameterize_checkpoint(cfg, tmp_path / 'src.pth', tmp_path / 'dst.pth', ema=ema)
        with torch.no_grad():
            torch.testing.assert_close(deployed_outputs(tmp_path / 'dst.pth', x), source(x), atol=1e-5, rtol=1e-4)


def test_the_difference_is_measured_on_given_images(cfg, model, tmp_path):
    import cv2

    generator = np.random.default_rng(0)
    (tmp_path / 'images' / 'deeper').mkdir(parents=True)
    for name in ('a.png', 'b.jpg', 'deeper/c.png'):
        cv2.imwrite(str(tmp_path / 'images' / name), generator.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    source = save(tmp_path / 'src.pth', model.state_dict())
    result = reparameterize_checkpoint(cfg, source, tmp_path / 'dst.pth', data=tmp_path / 'images')
    assert result.num_inputs == 3
    assert result.difference < 1e-5
    assert reparameterize_checkpoint(cfg, source, tmp_path / 'dst.pth', data=tmp_path / 'images/a.png').num_inputs == 1
    (tmp_path / 'images' / 'd.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'images/d\.png can not be read'):
        reparameterize_checkpoint(cfg, source, tmp_path / 'dst.pth', data=tmp_path / 'images')
    (tmp_path / 'none').mkdir()
    with pytest.raises(ValueError, match='none holds no image'):
        reparameterize_checkpoint(cfg, source, tmp_path / 'dst.pth', data=tmp_path / 'none')


def test_the_deploy_config_will_do_too(cfg, model, tmp_path):
    cfg.model.backbone.deploy = True
    result = reparameterize_checkpoint(cfg, save(tmp_path / 'src.pth', model.state_dict()), tmp_path / 'dst.pth')
    assert result.difference < 1e-5


def without(state_dict, key):
    return {k: v for k, v in state_dict.items() if k != key}


REFUSED = {
    'deploy form': (lambda s: {'backbone.stem.branch_reparam.weight': s['head.fc.weight']}, 'in deploy form already'),
    'missing': (lambda s: without(s, 'head.fc.bias'), r'1 missing \(head\.fc\.bias'),
    'unexpected': (lambda s: {**s, 'head.extra': torch.ones(1)}, r'1 unexpected \(head\.extra'),
    'other arch': (lambda s: {**s, 'head.fc.weight': torch.ones(10, 64)}, r'head\.fc\.weight \(10, 64\) instead of'),
    'nan': (
        lambda s: {**s, 'head.fc.bias': torch.full((10,), float('nan'))},
        'head.fc.bias has values that are NaN or infinite',
    ),
    'too large': (
        lambda s: {
            key: value * 1e30 if key.startswith('backbone.stem.branch_1x1') and key.endswith('weight') else value
            for key, value in s.items()
        },
        'exceed the range of torch.float32 when they are fused',
    ),
    'outputs that are not finite': (
        lambda s: {**s, 'head.fc.weight': torch.full((10, 128), 3e38)},
        'differs from the train form by nan',
    ),
    'negative variance': (
        lambda s: {**s, 'backbone.stem.branch_1x1.norm.running_var': -torch.ones(16)},
        r'stem\.branch_1x1\.norm\.running_var has negative values, which no variance has',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_converted_leaves_the_destination_as_it_was(cfg, model, tmp_path, case):
    change, message = REFUSED[case]
    source = save(tmp_path / 'src.pth', change(dict(model.state_dict())))
    destination = tmp_path / 'dst.pth'
    destination.write_bytes(b'precious')
    with pytest.raises(CheckpointError, match=message):
        reparameterize_checkpoint(cfg, source, destination)
    assert destination.read_bytes() == b'precious'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dst.pth', 'src.pth']


def test_a_difference_above_the_tolerance_is_refused(cfg, model, tmp_path):
    source = save(tmp_path / 'src.pth', model.state_dict())
    with pytest.raises(CheckpointError, match=r'more than the tolerance of 1e-12; .*allow more with `tolerance`'):
        reparameterize_checkpoint(cfg, source, tmp_path / 'dst.pth', tolerance=1e-12)
    assert not (tmp_path / 'dst.pth').exists()


def test_what_is_put_in_place_was_read_back(cfg, model, tmp_path, monkeypatch):
    """On a disk that changes a bit of the last file that is written."""
    source = save(tmp_path / 'src.pth', model.state_dict())
    whole_save = torch.save

    def save_with_a_fault(content, path):
        if 'max_relative_difference' in content['meta']['mmrepvgg']:
            weights = content['state_dict']
            content = content | dict(state_dict=weights | {'head.fc.bias': weights['head.fc.bias'] + 1e-3})
        whole_save(content, path)

    monkeypatch.setattr(torch, 'save', save_with_a_fault)
    with pytest.raises(CheckpointError, match='could not be read back as it was written; nothing was put in place'):
        reparameterize_checkpoint(cfg, source, tmp_path / 'dst.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['src.pth']


@pytest.mark.parametrize('name', ['src.pth/dst.pth', '.', '/proc/dst.pth'])
def test_a_destination_that_can_not_be_written_is_refused_before_all_else(cfg, tmp_path, name):
    (tmp_path / 'src.pth').write_bytes(b'not read')
    with pytest.raises(
        OSError, match=r'can not be written: no file can be made in|is a folder; give the name of a file'
    ):
        reparameterize_checkpoint(cfg, tmp_path / 'src.pth', tmp_path / name)


def test_weights_written_by_mmengines_ema_hook_are_the_averaged_ones(cfg, model, randomise, tmp_path):
    """EMAHook swaps: what it saves as state_dict is the average. --ema must find that, and not swap back."""
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    hook = EMAHook()
    hook.ema_model = ExponentialMovingAverage(randomise(copy.deepcopy(model), seed=1))
    checkpoint = dict(state_dict=model.state_dict(), meta=META)
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'src.pth')
    averaged = dict(hook.ema_model.module.state_dict())
    for ema in (True, False):
        loaded = read_checkpoint(tmp_path / 'src.pth', ema=ema).state_dict
        torch.testing.assert_close(loaded, averaged, atol=0, rtol=0)


def test_unusual_channels_are_named_with_what_to_do(cfg, model, randomise, tmp_path):
    """Among them are nearly dead ones. The file is written all the same."""
    stage = model.backbone.stage_2
    for branch in (stage[1].branch_3x3.norm, stage[1].branch_1x1.norm, stage[1].branch_norm):
        branch.weight.data[3] = 0
    stage[0].branch_3x3.norm.running_var[:2] = 1e-12
    stage[0].branch_3x3.norm.weight.data[0] = 1e6
    (tmp_path / 'config.py').write_text(cfg.pretty_text)
    save(tmp_path / 'src.pth', model.state_dict())
    done = run_tool('reparameterize_model', 'config.py', 'src.pth', 'dst.pth', cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count('\n') == 1
    start = 'reparameterize_model.py: warning: backbone.stage_2'
    wide, dead, large = [line for line in done.stderr.splitlines() if 'warning' in line]
    assert re.match(rf'{start}\.0 \(2\): 2 channels with weights more than 100 times .* up to \S+e\+\d+ times', wide)
    assert 'rescale them with --equalize, and see by mmrepvgg analyze CONFIG CHECKPOINT what' in wide
    assert dead.startswith(f'{start}.1 (1): 1 channel with weights of 0, or nearly so')
    assert re.match(rf'{start}\.0 \(\d+\): \d+ numbers above 65504, the largest of fp16', large)
    assert (tmp_path / 'dst.pth').exists()

    save(tmp_path / 'usual.pth', randomise(model).state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        reparameterize_checkpoint(cfg, tmp_path / 'usual.pth', tmp_path / 'dst.pth')

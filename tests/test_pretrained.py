"""The backbone of another task, its weights from a classifier's file by init_cfg."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit
from tiny_runner import TINY_BACKBONE, make_model_config

from mmrepvgg import build_backbone, build_classifier, reparameterize
from mmrepvgg.checkpoints.reading import CheckpointError
from mmrepvgg.engine.starting import read_pretrained, require_backbone
from mmrepvgg.engine.training import train
from mmrepvgg.models.forms import CheckpointFormError


@pytest.fixture
def classifier(randomise):
    return randomise(build_classifier(make_model_config()))


def pretrain(classifier, path, **backbone):
    torch.save(dict(state_dict=classifier.state_dict()), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    return TINY_BACKBONE | dict(init_cfg=init_cfg) | backbone


def test_every_weight_arrives_and_frozen_stages_keep_it(classifier, tmp_path):
    options = dict(out_indices=(0, 1), strides=(2, 1), dilations=(1, 2), frozen_stages=1, norm_eval=True)
    backbone = build_backbone(pretrain(classifier, tmp_path / 'x.pth', **options))
    backbone.init_weights()
    expected = classifier.backbone.state_dict()
    assert list(backbone.state_dict()) == list(expected)
    backbone.train()
    features = backbone(torch.randn(2, 3, 32, 32))
    assert [tuple(f.shape) for f in features] == [(2, 8, 8, 8), (2, 16, 8, 8)]
    sum(f.sum() for f in features).backward()
    torch.optim.SGD(backbone.parameters(), lr=1e-4).step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, expected[key])}
    assert changed
    assert all(key.startswith('stage_2.') for key in changed)
    assert not any('running' in key for key in changed)  # norm_eval
    backbone.eval().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for before, after in zip(backbone(images), reparameterize(backbone)(images), strict=True):
        torch.testing.assert_close(after, before, atol=1e-10, rtol=0)


def test_a_file_of_the_other_form_is_refused(classifier, tmp_path):
    backbone = build_backbone(pretrain(reparameterize(classifier), tmp_path / 'x.pth'))
    with pytest.raises(CheckpointFormError, match='the checkpoint is in deploy form'):
        backbone.init_weights()


KAIMING = dict(type='Kaiming', layer='Conv2d')


@pytest.mark.parametrize(
    ('place', 'init_cfg'),
    [
        ('backbone', dict(type='Pretrained', prefix='backbone')),
        ('backbone', dict(type='Pretrained', prefix='backbone.')),
        ('backbone', dict(type=PretrainedInit, prefix='backbone')),
        ('backbone', [KAIMING, dict(type='Pretrained', prefix='backbone')]),
        ('model', dict(type='Pretrained')),
        ('model', [dict(type='Pretrained'), KAIMING]),
        ('pretrained', None),
    ],
)
@pytest.mark.parametrize('fits', [True, False])
def test_every_way_to_name_a_file_is_read_as_mmengine_reads_it(classifier, tmp_path, place, init_cfg, fits):
    path = str(tmp_path / 'x.pth')
    weights = classifier.state_dict()
    if not fits:
        del weights['backbone.stage_1.0.branch_1x1.conv.weight']
    torch.save(dict(state_dict=weights), path)
    for part in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
        if part and part is not KAIMING:
            part['checkpoint'] = path
    model_cfg = make_model_config(dict(init_cfg=init_cfg) if place == 'backbone' else {})
    model_cfg |= {'model': dict(init_cfg=init_cfg), 'pretrained': dict(pretrained=path)}.get(place, {})
    model = build_classifier(model_cfg)
    ((checkpoint, prefix),) = read_pretrained(model_cfg)
    if not fits:
        with pytest.raises(CheckpointError, match=r'x.pth lacks 1 of the \d+ tensors of the backbone'):
            require_backbone(model, checkpoint, prefix)
        return
    require_backbone(model, checkpoint, prefix)
    model.init_weights()
    expected = classifier.backbone.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.backbone.state_dict().items())


@pytest.mark.parametrize('change', ['no prefix', 'other width', 'classifier'])
def test_training_refuses_a_file_that_leaves_weights_random(classifier, tmp_path, change):
    backbone = pretrain(classifier, tmp_path / 'x.pth')
    model_cfg = {}
    if change == 'no prefix':
        del backbone['init_cfg']['prefix']
    elif change == 'other width':
        backbone |= dict(base_channels=16)
    else:
        model_cfg = dict(init_cfg=backbone.pop('init_cfg'))
    cfg = Config(dict(model=make_model_config(backbone) | model_cfg, default_scope='mmpretrain'))
    with pytest.raises(CheckpointError, match=r'x.pth lacks \d+ of the \d+ tensors of the backbone, or has them in'):
        train(cfg, str(tmp_path / 'work'))

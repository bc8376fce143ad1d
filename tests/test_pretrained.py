"""The backbone of another task, its weights from a classifier's file by init_cfg."""

import pytest
import torch
from mmengine.config import Config
from tiny_runner import TINY_BACKBONE, make_model_config

from mmrepvgg import build_backbone, build_classifier, reparameterize
from mmrepvgg.checkpoints.reading import CheckpointError
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


@pytest.mark.parametrize('change', [dict(prefix=None), dict(base_channels=16)], ids=['no prefix', 'other width'])
def test_training_refuses_a_file_that_leaves_weights_random(classifier, tmp_path, change):
    backbone = pretrain(classifier, tmp_path / 'x.pth')
    if 'prefix' in change:
        del backbone['init_cfg']['prefix']
    else:
        backbone |= change
    cfg = Config(dict(model=make_model_config(backbone), default_scope='mmpretrain'))
    with pytest.raises(CheckpointError, match=r'x.pth lacks \d+ of the \d+ tensors of the backbone, or has them in'):
        train(cfg, str(tmp_path / 'work'))

"""A PSPNet on RepVGG: trained, switched and tested by the tools, as a user runs them."""

import pytest
import torch
from both_forms import check_both_forms
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import ROOT, fail, succeed

from examples.segmentation.shapes import prepare_shapes
from mmrepvgg import RepVGGBlock, build_backbone, reparameterize
from mmrepvgg.models.building import build_model

CONFIG = ROOT / 'examples/segmentation/pspnet_repvgg-a0_shapes.py'
DEPLOY_CONFIG = ROOT / 'examples/segmentation/pspnet_repvgg-a0_shapes_deploy.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with data/shapes and psp/epoch_1.pth after 4 iterations."""
    folder = tmp_path_factory.mktemp('segmentation')
    prepare_shapes(folder / 'data/shapes', num_train=32, num_val=8)
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    succeed('train', CONFIG, '--work-dir', 'psp', '--cfg-options', *options, cwd=folder)
    return folder


def test_the_segmentor_is_built_with_this_projects_backbone():
    model = build_model(Config.fromfile(CONFIG), deploy=False)
    features = model.backbone(torch.randn(1, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(1, 192, 8, 8), (1, 1280, 8, 8)]
    assert [block.dilation for block in model.backbone.stage_4] == [4]


def test_whole_segmentor_switches_to_equal_predictions(trained, randomise):
    model = randomise(build_model(Config.fromfile(CONFIG), deploy=False)).double()
    deployed = reparameterize(model)
    blocks = [m for m in deployed.modules() if isinstance(m, RepVGGBlock)]
    assert len(blocks) == 22
    assert all(block.deploy for block in blocks)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before, after = model(images), deployed(images)
    assert before.shape == (2, 4, 8, 8)
    assert before.abs().max() > 1e-3
    torch.testing.assert_close(after, before, atol=1e-10, rtol=0)


def test_tools_convert_and_test_both_forms(trained):
    source = trained / 'psp/epoch_1.pth'
    check_both_forms(trained, source, CONFIG, DEPLOY_CONFIG, r'aAcc|mIoU|mAcc', 3)
    line = fail('test', CONFIG, source, '--metrics', 'accuracy', cwd=trained)
    assert 'are for classifiers, got a config of EncoderDecoder' in line


def test_a_classifiers_backbone_is_loaded_by_prefix(tmp_path, randomise):
    """Weights of a classifier's file arrive in the segmentor; its head does not matter."""
    classifier = randomise(build_backbone(dict(type='RepVGG', arch='A0')))
    state_dict = {f'backbone.{key}': value for key, value in classifier.state_dict().items()}
    torch.save(dict(state_dict=state_dict | {'head.fc.weight': torch.zeros(10, 1280)}), tmp_path / 'classifier.pth')
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'classifier.pth'), prefix='backbone.'
    )
    model = MODELS.build(dict(cfg.model, _scope_='mmseg'))
    model.init_weights()
    for key, value in classifier.state_dict().items():
        torch.testing.assert_close(model.backbone.state_dict()[key], value, atol=0, rtol=0)

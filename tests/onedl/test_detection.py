"""A RetinaNet on RepVGG: trained, switched and tested by the tools, as a user runs them, and its backbone exported."""

import re
from itertools import chain

import pytest
import torch
from both_forms import check_both_forms
from mmengine.config import Config
from tool_runs import ROOT, run_python, succeed

from examples.segmentation.shapes import prepare_shapes
from mmrepvgg import RepVGGBlock, reparameterize
from mmrepvgg.models.building import build_model

FOLDER = ROOT / 'examples/detection'
CONFIG, DEPLOY_CONFIG = (FOLDER / f'retinanet_repvgg-a0_shapes{form}.py' for form in ('', '_deploy'))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with data/shapes and retina/epoch_1.pth after 4 iterations."""
    folder = tmp_path_factory.mktemp('detection')
    prepare_shapes(folder / 'data/shapes', num_train=32, num_val=8)
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    succeed('train', CONFIG, '--work-dir', 'retina', '--cfg-options', *options, cwd=folder)
    return folder


def test_whole_detector_switches_to_equal_predictions(randomise):
    model = randomise(build_model(Config.fromfile(CONFIG), deploy=False)).double()
    deployed = reparameterize(model)
    blocks = [module for module in deployed.modules() if isinstance(module, RepVGGBlock)]
    assert len(blocks) == 22
    assert all(block.deploy for block in blocks)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        # scores and boxes of three levels
        before, after = ([*chain.from_iterable(form(images))] for form in (model, deployed))
    assert [tuple(output.shape) for output in before[:3]] == [(2, 27, side, side) for side in (8, 4, 2)]
    for expected, found in zip(before, after, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_tools_convert_and_test_both_forms(trained):
    check_both_forms(trained, trained / 'retina/epoch_1.pth', CONFIG, DEPLOY_CONFIG, r'coco/bbox_mAP\S*', 6)


def test_the_exported_backbone_gives_the_checkpoints_feature_maps(trained):
    script = FOLDER / 'export_backbone.py'
    arguments = (CONFIG, 'retina/epoch_1.pth', 'backbone.onnx', '--size', 64, 96)
    done = run_python(script, *arguments, cwd=trained)
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.fullmatch(r'backbone.onnx: 3 feature maps, largest difference (\S+)', done.stdout.splitlines()[-1])
    assert float(found[1]) < 1e-5

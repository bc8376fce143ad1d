"""What code for mmpretrain relies on: arguments in its order, attributes, types; and its own functions and tools."""

import inspect
import os
import re
import runpy
import sys
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer, get_model
from mmpretrain.models.backbones import repvgg as theirs
from mmpretrain.models.classifiers import ImageClassifier as TheirClassifier
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.models.utils import SELayer as TheirSELayer
from tool_runs import SMALL, SMALL_DEPLOY
from torch import nn

from mmrepvgg import AuxiliaryClsHead, ImageClassifier, QARepVGGBlock, RepVGG, RepVGGBlock, load_config
from mmrepvgg.models.squeeze_excite import SELayer

SE = dict(ratio=4, divisor=1)
THEIR_TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
IMAGES = [f'data/digits/val/{image}.png' for image in ('7/0081', '3/0045')]
FORMS = {'train': (SMALL, 'small.pth'), 'deploy': (SMALL_DEPLOY, 'small_deploy.pth')}


@pytest.mark.parametrize(
    ('ours', 'their'),
    [
        (RepVGGBlock, theirs.RepVGGBlock),
        (QARepVGGBlock, theirs.RepVGGBlock),
        (RepVGG, theirs.RepVGG),
    ],
)
def test_positional_arguments_are_theirs_and_all_others_have_to_be_named(ours, their):
    expected = list(inspect.signature(their.__init__).parameters)
    parameters = inspect.signature(ours.__init__).parameters
    assert list(parameters)[: len(expected)] == expected
    assert {p.kind for p in list(parameters.values())[len(expected) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_positional_arguments_of_the_other_parts_are_theirs():
    assert RepVGGBlock(8, 8, 1, 1, 1, 1, 'zeros', None, True).with_cp
    init_cfg = dict(type='Normal', layer='Linear', std=0.5)
    assert AuxiliaryClsHead(10, 8, init_cfg).init_cfg == LinearClsHead(10, 8, init_cfg).init_cfg == init_cfg
    arguments = (8, 2, 16, 8, False, None, dict(type='ReLU'))
    assert str(SELayer(*arguments).conv1.conv) == str(TheirSELayer(*arguments).conv1.conv)
    backbone, head = dict(type='RepVGG', arch='A0'), dict(type='LinearClsHead', num_classes=10, in_channels=1280)
    preprocessor = dict(type='ClsDataPreprocessor', mean=[1, 2, 3], std=[1, 1, 1])
    arguments = (backbone, dict(type='GlobalAveragePooling'), head, None, None, preprocessor)
    with torch.device('meta'):
        models = [classifier(*arguments) for classifier in (ImageClassifier, TheirClassifier)]
    assert len({model.data_preprocessor.mean.shape for model in models}) == 1


@pytest.mark.parametrize('deploy', [False, True])
def test_attributes_of_the_block(deploy):
    arguments = dict(stride=2, padding=1, groups=2, se_cfg=SE, with_cp=True, norm_cfg=dict(type='BN', eps=0.1))
    ours, their = (make_block(8, 16, deploy=deploy, **arguments) for make_block in (RepVGGBlock, theirs.RepVGGBlock))
    assert_same_attributes(ours, their)
    assert isinstance(ours.se_layer, TheirSELayer)
    for name in ('branch_3x3', 'branch_1x1', 'branch_norm', 'branch_reparam'):
        assert hasattr(ours, name) is hasattr(their, name)


def test_attributes_of_the_backbone():
    arguments = dict(base_channels=16, strides=(2, 2, 1, 1), dilations=(1, 1, 2, 4), out_indices=(1, 3), with_cp=True)
    assert_same_attributes(RepVGG('B1g4', **arguments), theirs.RepVGG('B1g4', **arguments))


def assert_same_attributes(ours: nn.Module, their: nn.Module) -> None:
    compared = [name for name in vars(their) if not name.startswith('_') and name not in ('training', 'arch')]
    assert {'with_cp', 'norm_cfg', 'act_cfg', 'conv_cfg', 'deploy'} < set(compared)
    for name in compared:
        if name not in ('branch_norm', 'se_layer'):
            assert getattr(ours, name) == getattr(their, name), name


@pytest.mark.parametrize('arch', theirs.RepVGG.arch_settings)
def test_archs_are_read_like_their_dicts(arch):
    expected = theirs.RepVGG.arch_settings[arch]
    found = RepVGG.arch_settings[arch]
    for key in ('num_blocks', 'width_factor'):
        assert list(found[key]) == expected[key]
    assert (found['group_layer_map'] or None) == expected['group_layer_map']
    assert found['se_cfg'] == expected['se_cfg']
    assert found.get('stem_channels', 64) == expected.get('stem_channels', 64)
    with torch.device('meta'):
        backbone = RepVGG(dict(found, stem_channels=8))
    assert backbone.arch['num_blocks'] == found['num_blocks']
    assert backbone.arch['stem_channels'] == backbone.stem.out_channels == 8
    with pytest.raises(KeyError, match='blocks'):
        found['blocks']


def test_their_squeeze_excite_layer_has_the_same_weights_and_function():
    ours, their = SELayer(24, ratio=4), TheirSELayer(24, ratio=4)
    ours.load_state_dict(their.state_dict())
    x = torch.randn(2, 24, 5, 5)
    expected = their(x)
    torch.testing.assert_close(ours(x), expected, atol=0, rtol=0)
    torch.testing.assert_close(torch.jit.script(ours)(x), expected)


@pytest.fixture
def in_workspace(workspace, monkeypatch) -> Path:
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(sys, 'argv', sys.argv)
    return workspace


def run_their_tool(name: str, *args: object) -> None:
    """Run a tool of mmpretrain in this process; the start of one of its own takes seconds."""
    path = THEIR_TOOLS / name
    sys.argv = [str(path), *map(str, args)]
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name='__main__')
    finally:
        sys.path.remove(str(path.parent))


def read_top1(capsys: pytest.CaptureFixture) -> float:
    return float(re.search(r"accuracy/top1'?: ([\d.]+)", capsys.readouterr().out)[1])


def test_their_inferencers_see_the_same_in_both_forms(in_workspace):
    results = {}
    for form, (config, checkpoint) in FORMS.items():
        model = get_model(config, pretrained=checkpoint)
        inferencer = ImageClassificationInferencer(model)
        predictions = inferencer(IMAGES, batch_size=2, show_dir=f'shown_{form}')
        assert [prediction['pred_class'] for prediction in predictions] == ['7', '3']
        assert len(list(Path(f'shown_{form}').iterdir())) == 2
        (features,) = FeatureExtractor(model)(IMAGES[0])
        results[form] = [prediction['pred_scores'] for prediction in predictions], features[0]
    (scores, features), (deploy_scores, deploy_features) = results.values()
    np.testing.assert_allclose(deploy_scores, scores, atol=1e-5)
    torch.testing.assert_close(deploy_features, features, atol=1e-4, rtol=1e-4)


def test_their_inferencers_take_configs_with_our_reading_step(in_workspace):
    cfg = load_config(SMALL)
    expected = ImageClassificationInferencer(cfg, pretrained='small.pth')(IMAGES[0])[0]['pred_scores']
    cfg.test_dataloader.dataset.pipeline[0] = dict(type='mmrepvgg.LoadImageFromFile', background=[255, 255, 255])
    found = ImageClassificationInferencer(cfg, pretrained='small.pth')(IMAGES[0])[0]['pred_scores']
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('form', FORMS)
def test_their_tools_test_draw_and_count(form, in_workspace, capsys):
    config, checkpoint = FORMS[form]
    run_their_tool(
        'test.py', config, checkpoint, '--work-dir', 'test', '--out', 'out.pkl', '--show-dir', 'shown', '--interval', 90
    )
    assert len(list(Path('shown').iterdir())) == 360 // 90
    top1 = read_top1(capsys)
    assert top1 > 90
    run_their_tool('analysis_tools/eval_metric.py', 'out.pkl', '--metric', 'type=Accuracy', 'topk=1')
    assert read_top1(capsys) == pytest.approx(top1, abs=1e-3)
    run_their_tool('analysis_tools/confusion_matrix.py', config, 'out.pkl', '--show-path', 'confusions.png')
    run_their_tool('analysis_tools/analyze_results.py', config, 'out.pkl', '--out-dir', 'analysed', '--topk', 2)
    run_their_tool('visualization/vis_scheduler.py', config, '--save-path', 'rates.jpg', '--dataset-size', 1437)
    for picture in ('confusions.png', 'rates.jpg'):
        assert Path(picture).stat().st_size > 5000
    assert [len(list(Path('analysed', folder).glob('*.png'))) for folder in ('success', 'fail')] == [2, 2]
    capsys.readouterr()
    run_their_tool('analysis_tools/get_flops.py', config, '--shape', 32)
    assert 'Input shape: (3, 32, 32)' in capsys.readouterr().out
    if form == 'deploy':  # a Runner's checkpoint is refused by torch.load
        run_their_tool('model_converters/publish_model.py', checkpoint, 'published.pth')
        assert len(list(Path.cwd().glob('published_*.pth'))) == 1


def test_their_training_tool_trains_what_their_test_tool_tests(in_workspace, capsys):
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    run_their_tool('train.py', SMALL, '--work-dir', 'trained', '--cfg-options', *options)
    log = next(Path('trained').glob('2*/vis_data/scalars.json'))
    run_their_tool('analysis_tools/analyze_logs.py', 'plot_curve', log, '--keys', 'loss', '--out', 'loss.png')
    assert os.path.getsize('loss.png') > 5000
    capsys.readouterr()
    run_their_tool('test.py', SMALL, 'trained/epoch_1.pth', '--work-dir', 'tested')
    assert read_top1(capsys) > 0

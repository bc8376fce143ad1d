"""What code that is written for mmpretrain's RepVGG relies on: arguments in its order, attributes, types."""

import inspect

import pytest
import torch
from mmpretrain.models.backbones import repvgg as theirs
from mmpretrain.models.classifiers import ImageClassifier as TheirClassifier
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.models.utils import SELayer as TheirSELayer
from torch import nn

from mmrepvgg import AuxiliaryClsHead, ImageClassifier, QARepVGGBlock, RepVGG, RepVGGBlock
from mmrepvgg.models.squeeze_excite import SELayer

SE = dict(ratio=4, divisor=1)


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

"""A config's ``type`` is a name, with or without scope, or the class itself."""

import pytest
from mmengine.config import Config

from mmrepvgg import AuxiliaryClsHead, ImageClassifier, RepVGG, RepVGGBlock
from mmrepvgg.models.building import build_model
from mmrepvgg.models.config_types import get_type_name, iterate_parts

TINY = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4)


def test_names_of_types():
    assert [get_type_name(cfg_type) for cfg_type in ('RepVGG', 'mmrepvgg.RepVGG', RepVGG)] == ['RepVGG'] * 3
    assert get_type_name(None) == ''


def test_parts_are_found_everywhere_outer_ones_first():
    cfg = dict(type='A', steps=[dict(type='B'), (dict(type=RepVGG),), 'C'], other=dict(inner=dict(type='D')), type_=3)
    assert [get_type_name(part['type']) for part in iterate_parts(cfg)] == ['A', 'B', 'RepVGG', 'D']


@pytest.mark.parametrize(
    'types',
    [
        (ImageClassifier, RepVGG, AuxiliaryClsHead),
        ('mmrepvgg.ImageClassifier', 'mmrepvgg.RepVGG', 'mmrepvgg.AuxiliaryClsHead'),
    ],
    ids=['classes', 'names'],
)
def test_every_part_of_a_model_is_built_in_the_form_asked_for(types):
    classifier, backbone, head = types
    model = dict(
        type=classifier,
        backbone=dict(type=backbone, arch=TINY, out_indices=(1, 3)),
        head=dict(type=head, num_classes=3),
    )
    for deploy in (False, True):
        built = build_model(Config(dict(model=model)), deploy)
        assert {block.deploy for block in built.modules() if isinstance(block, RepVGGBlock)} == {deploy}
        assert len(built.head.aux_heads) == (0 if deploy else 1)

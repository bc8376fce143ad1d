"""Class activation maps, which are exact for average pooling and one linear layer."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_classifier import SMALL_CLASSIFIER
from test_l2pse import read_config
from torch import nn

from mmrepvgg import build_classifier, reparameterize
from mmrepvgg.models.building import build_model
from mmrepvgg.prediction.cam import class_activation_maps, locate_evidence, overlay, to_picture
from mmrepvgg.runtimes.classifier import ExportedClassifier

CLASSES = torch.tensor([3, 7, 3])


def build_small() -> nn.Module:
    return build_classifier(SMALL_CLASSIFIER)


def build_plus() -> nn.Module:
    return build_model(read_config(), deploy=False)


@pytest.mark.parametrize('build', [build_small, build_plus])
def test_the_mean_of_a_map_and_the_bias_are_the_logit_and_both_forms_give_the_same_map(build, randomise):
    model = randomise(build()).eval().double()
    nn.init.normal_(model.head.fc.bias)
    images = torch.randn(3, 3, 96, 64, dtype=torch.float64)
    maps = class_activation_maps(model, images, CLASSES)
    assert maps.shape == (3, 3, 2)
    assert not maps.requires_grad
    logits = model(images)[range(3), CLASSES]
    torch.testing.assert_close(maps.mean((1, 2)) + model.head.fc.bias[CLASSES], logits, atol=1e-10, rtol=0)
    deployed = class_activation_maps(reparameterize(model), images, CLASSES)
    torch.testing.assert_close(deployed, maps, atol=1e-10, rtol=0)


@pytest.mark.parametrize('build', [build_small, build_plus])
def test_small_images_get_the_maps_of_an_earlier_stage_which_are_the_same_in_both_forms(build, randomise):
    model = randomise(build()).eval().double()
    images = torch.randn(3, 3, 96, 64, dtype=torch.float64)
    exact, stage = locate_evidence(model, images, CLASSES, min_size=2)
    assert stage is None
    torch.testing.assert_close(exact, class_activation_maps(model, images, CLASSES))
    maps, stage = locate_evidence(model, images, CLASSES)
    assert (stage, maps.shape) == ('stage_3', (3, 6, 4))
    deployed, stage = locate_evidence(reparameterize(model), images, CLASSES)
    assert stage == 'stage_3'
    torch.testing.assert_close(deployed, maps, atol=1e-10, rtol=0)
    assert locate_evidence(model, images, CLASSES, min_size=99)[1] == 'stage_1'


def test_in_the_last_stage_the_rule_for_earlier_ones_gives_the_exact_map(randomise):
    model = randomise(build_small()).eval().double()
    del model.backbone.stages[:-1]
    images = torch.randn(3, 3, 96, 64, dtype=torch.float64)
    maps, stage = locate_evidence(model, images, CLASSES)
    assert stage == 'stage_4'
    torch.testing.assert_close(maps * 6, class_activation_maps(model, images, CLASSES), atol=1e-10, rtol=0)


def test_other_heads_and_exported_files_are_refused(export_once, small_cfg):
    message = 'class activation maps need a checkpoint of a classifier with GlobalAveragePooling and LinearClsHead, or'
    stacked = dict(type='StackedLinearClsHead', num_classes=10, in_channels=128, mid_channels=[16])
    _, file = export_once(small_cfg, '.torchscript', input_size=(32, 32))
    for model in (
        build_classifier({**SMALL_CLASSIFIER, 'head': stacked}),
        build_classifier({**SMALL_CLASSIFIER, 'neck': None}),
        ExportedClassifier(file),
    ):
        with pytest.raises(ValueError, match=message):
            class_activation_maps(model.eval(), torch.zeros(1, 3, 32, 32), torch.tensor([0]))


def test_an_overlay_is_bright_where_the_map_is_large():
    image = Image.new('RGB', (64, 48), (90, 90, 90))
    picture = np.asarray(overlay(image, torch.tensor([[-5.0, 0.0], [0.0, 4.0]])))
    assert picture.shape == (48, 64, 3)
    brightness = picture.mean(2)
    assert brightness[-4:, -4:].mean() > 2 * brightness[:4, :4].mean()
    # no evidence at all
    for nothing in (torch.zeros(2, 2), torch.full((2, 2), -1.0)):
        assert len(np.unique(np.asarray(overlay(image, nothing)).reshape(-1, 3), axis=0)) == 1


def test_a_packed_image_becomes_a_picture():
    blue = torch.zeros(3, 4, 6, dtype=torch.uint8)
    blue[0] = 200
    assert to_picture(blue).getpixel((5, 3)) == (0, 0, 200)
    assert to_picture(torch.full((1, 4, 6), 7, dtype=torch.uint8)).getpixel((5, 3)) == (7, 7, 7)

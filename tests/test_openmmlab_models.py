"""The switch of mmpretrain's own models, in what OpenMMLab puts around them."""

import copy
import socket

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import ExponentialMovingAverage
from mmpretrain.structures import DataSample
from torch import nn

from mmrepvgg import build_classifier, reparameterize


def make_classifier(randomise, backbone, channels):
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=channels),
    )
    return randomise(build_classifier(cfg)).double().eval()


MOBILEONE = dict(type='mmpretrain.MobileOne', arch='s0', out_indices=(3,))


@pytest.fixture
def mobileone(randomise):
    return make_classifier(randomise, MOBILEONE, 1024)


def images(number=2):
    return torch.rand(number, 3, 32, 32, dtype=torch.float64)


def test_all_modes_of_a_classifier(mobileone):
    x, samples = images(), [DataSample().set_gt_label(1) for _ in range(2)]
    expected = [mobileone(x, samples, mode=mode) for mode in ('tensor', 'loss', 'predict')]
    switched, report = reparameterize(mobileone, x, return_report=True)
    assert report.num_branches_left == report.num_norms_left == 0
    actual = [switched(x, samples, mode=mode) for mode in ('tensor', 'loss', 'predict')]
    torch.testing.assert_close(actual[0], expected[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(actual[1], expected[1], atol=1e-10, rtol=0)
    for one, other in zip(actual[2], expected[2], strict=True):
        torch.testing.assert_close(one.pred_score, other.pred_score, atol=1e-10, rtol=0)
    torch.testing.assert_close(switched.extract_feat(x), mobileone.extract_feat(x), atol=1e-10, rtol=0)


def test_averages_and_copies(mobileone):
    x = images()
    expected = mobileone(x)
    averaged = reparameterize(ExponentialMovingAverage(mobileone))
    torch.testing.assert_close(averaged(x), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(copy.deepcopy(reparameterize(mobileone))(x), expected, atol=1e-10, rtol=0)


def test_ddp(mobileone):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=0, world_size=1)
    try:
        switched = reparameterize(nn.parallel.DistributedDataParallel(mobileone))
        torch.testing.assert_close(switched(images(1)).shape, (1, 10))
        switched.train()(images()).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [
        (dict(type='mmpretrain.RepVGG', arch='A0', out_indices=(3,), with_cp=True), 1280),
        (dict(type='mmpretrain.MobileNetV2', widen_factor=0.35), 1280),
        (dict(type='mmpretrain.ResNetV1d', depth=18, frozen_stages=1, norm_eval=True, with_cp=True), 512),
        (dict(type='mmpretrain.ShuffleNetV2', widen_factor=0.5), 1024),
    ],
)
def test_backbones(randomise, backbone, channels):
    model, x = make_classifier(randomise, backbone, channels), images()
    switched, report = reparameterize(model, x, return_report=True)
    assert report.num_branches_left == report.num_norms_left == 0
    torch.testing.assert_close(switched(x), model(x), atol=1e-10, rtol=0)
    switched.train()


def test_a_module_of_mmcv_keeps_its_arguments(randomise):
    module = randomise(ConvModule(3, 8, 3, norm_cfg=dict(type='BN'))).double().eval()
    network, x = nn.Sequential(module), images()
    switched = reparameterize(network)
    assert list(switched.state_dict()) == ['0.conv.weight', '0.conv.bias']
    for activate in (True, False):
        torch.testing.assert_close(switched[0](x, activate=activate), module(x, activate=activate), atol=1e-10, rtol=0)
    compiled = reparameterize(torch.compile(network, backend='eager'))
    torch.testing.assert_close(compiled(x), network(x), atol=1e-10, rtol=0)
    # by itself nobody says with which arguments it is called
    _, report = reparameterize(module, return_report=True)
    assert 'an argument of `forward` that may be left out' in report.left['bn']

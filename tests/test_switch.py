import socket

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn

from mmrepvgg import RepVGG, RepVGGBlock, build_classifier, reparameterize

TINY = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25, 0.25, 0.25, 0.25])


def make_classifier(randomise):
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='RepVGG', arch=TINY),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
    )
    return randomise(build_classifier(cfg)).double().eval()


def test_a_copy_is_switched_unless_asked_otherwise(randomise):
    model = make_classifier(randomise)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    switched = reparameterize(model)
    assert switched is not model
    assert not model.backbone.deploy
    assert switched.backbone.deploy
    torch.testing.assert_close(switched(x), expected, atol=1e-10, rtol=0)
    assert reparameterize(model, inplace=True) is model
    assert model.backbone.deploy
    torch.testing.assert_close(model(x), expected, atol=1e-10, rtol=0)


def test_a_bare_block_and_a_plain_torch_network(randomise):
    block = randomise(RepVGGBlock(3, 8, stride=2)).double().eval()
    network = nn.Sequential(block, nn.Flatten(), nn.LazyLinear(2)).double()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    for model in (block, network):
        expected = model(x)
        torch.testing.assert_close(reparameterize(model)(x), expected, atol=1e-10, rtol=0)


def test_a_deployed_model_comes_back_as_it_is(randomise):
    switched = reparameterize(make_classifier(randomise))
    again = reparameterize(switched)
    torch.testing.assert_close(dict(again.state_dict()), dict(switched.state_dict()), atol=0, rtol=0)


def test_an_ema_wrapper(randomise):
    model = make_classifier(randomise)
    ema = ExponentialMovingAverage(model)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = ema(x)
    torch.testing.assert_close(reparameterize(ema)(x), expected, atol=1e-10, rtol=0)


def test_a_ddp_wrapper(randomise):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(make_classifier(randomise))
        x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        expected = model(x)
        switched = reparameterize(model)
        torch.testing.assert_close(switched(x), expected, atol=1e-10, rtol=0)
        assert not model.module.backbone.deploy
    finally:
        torch.distributed.destroy_process_group()


def test_a_frozen_backbone_trains_in_ddp():
    """mmpretrain freezes after DDP has collected the parameters, which then fails in the second step."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(RepVGG(TINY, frozen_stages=1))
        model.train()
        for _ in range(2):
            model(torch.rand(2, 3, 32, 32))[0].sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def test_the_report_has_blocks_and_what_is_around_them(randomise):
    network = nn.Sequential(RepVGGBlock(3, 8), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    model, x = randomise(network).double().eval(), torch.rand(1, 3, 9, 9, dtype=torch.float64)
    switched, report = reparameterize(model, x, return_report=True)
    assert report.num_convs == (3, 2)
    assert [each.name for each in report.fused] == ['0.branch_reparam', '1']
    assert report.fused[0].layers[:2] == ('0.branch_3x3.conv', '0.branch_3x3.norm')
    assert report.num_norms_left == 0
    assert report.difference < 1e-12
    assert list(switched.state_dict()) == ['0.branch_reparam.weight', '0.branch_reparam.bias', '1.weight', '1.bias']


def test_what_holds_nothing_to_fuse_is_refused():
    with pytest.raises(ValueError, match='ReLU holds no convolution and no linear layer'):
        reparameterize(nn.ReLU())
    with pytest.raises(TypeError, match=r'`model` must be a torch\.nn\.Module, got dict'):
        reparameterize({})
    with pytest.raises(TypeError, match='is a TorchScript module, whose code can not be changed'):
        reparameterize(torch.jit.trace(nn.Conv2d(3, 8, 3), torch.rand(1, 3, 5, 5)))
    with pytest.raises(TypeError, match='name `inplace=True`'):
        reparameterize(nn.Conv2d(3, 8, 3), True)


def test_models_that_can_not_be_copied():
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d()).eval()
    old = nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8)).eval()
    old(torch.rand(1, 3, 5, 5))
    for model in (lazy, old):
        with pytest.raises(ValueError, match=r'torch can not copy Sequential\. If it has lazy layers, run it once; '):
            reparameterize(model)
    _, report = reparameterize(old, inplace=True, return_report=True)
    assert 'hook' in report.left['0']


def test_a_shared_block_is_switched_once(randomise):
    block = randomise(RepVGGBlock(8, 8)).double().eval()
    model = nn.Sequential(block, block)
    x = torch.rand(1, 8, 9, 9, dtype=torch.float64)
    expected = model(x)
    switched = reparameterize(model)
    assert switched[0] is switched[1]
    torch.testing.assert_close(switched(x), expected, atol=1e-10, rtol=0)


def test_timms_walker_switches_exactly(randomise):
    from timm.utils.model import reparameterize_model

    model = make_classifier(randomise)
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    switched = reparameterize_model(model)
    assert switched.backbone.deploy
    torch.testing.assert_close(switched(x), expected, atol=1e-10, rtol=0)

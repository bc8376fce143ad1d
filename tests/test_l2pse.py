"""RepVGGplus-L2pse: SE behind the activation, and heads that exist for training only."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrepvgg import AuxiliaryClsHead, RepVGGBlock, build_backbone, build_classifier, reparameterize
from mmrepvgg.checkpoints.loading import load_weights
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.engine.testing import evaluate
from mmrepvgg.engine.training import train
from mmrepvgg.models.building import build_model
from mmrepvgg.models.complexity import count_params
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint

CONFIGS = Path(__file__).parents[1] / 'configs/repvgg'
# As L2pse, narrower and shallower.
TINY_ARCH = dict(
    num_blocks=(1, 2, 3, 1), width_factor=(0.25, 0.25, 0.125, 0.125), se_cfg=dict(ratio=4, divisor=1), se_after_act=True
)
OUT_INDICES = (0, 1, (2, 1), 3)
HEADS = ('head.aux_heads.0', 'head.aux_heads.1', 'head.aux_heads.2')


def read_config() -> Config:
    """The config of L2pse with a tiny arch and 10 classes."""
    cfg = Config.fromfile(CONFIGS / 'repvgg-l2pse_8xb32.py')
    cfg.model.backbone.update(arch=TINY_ARCH, out_indices=OUT_INDICES)
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = 10
    return cfg


def build(deploy: bool = False) -> nn.Module:
    model = build_model(read_config(), deploy)
    randomise(model)
    return model


def randomise(model: nn.Module) -> None:
    """Give the batch norms statistics, gains and biases as after a training, or a broken fusion would pass."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)


def save(model: nn.Module, path: Path, with_heads: bool = True) -> Path:
    weights = {key: value for key, value in model.state_dict().items() if with_heads or 'aux_heads' not in key}
    torch.save(dict(state_dict=weights), path)
    return path


def make_noise(size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_published_parameter_counts():
    cfg = Config.fromfile(CONFIGS / 'repvgg-l2pse_8xb32.py')
    with torch.device('meta'):
        model = build_model(cfg, deploy=False)
        assert count_params(model) == 146_062_864
        assert count_params(model) - count_params(model.head.aux_heads) == 140_099_224
        assert count_params(build_model(cfg, deploy=True)) == 127_151_960


def test_state_dict_keys_of_the_heads():
    keys = {key for key in build().state_dict() if key.startswith('head.')}
    norm = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    of_a_head = ['conv.weight', *(f'norm.{name}' for name in norm), 'fc.weight', 'fc.bias']
    assert keys == {'head.fc.weight', 'head.fc.bias', *(f'{head}.{key}' for head in HEADS for key in of_a_head)}


@pytest.mark.parametrize('deploy', [False, True])
def test_se_follows_the_activation(deploy):
    block = RepVGGBlock(8, 8, se_cfg=dict(ratio=4, divisor=1), se_after_act=True, deploy=deploy).eval()
    x = make_noise()[:, :1].repeat(1, 8, 1, 1)
    kernel, bias = (
        (block.branch_reparam.weight, block.branch_reparam.bias) if deploy else (block.get_equivalent_kernel_bias())
    )
    y = F.relu(F.conv2d(x, kernel, bias, padding=1))
    se = block.se_layer
    gate = torch.sigmoid(se.conv2.conv(F.relu(se.conv1.conv(y.mean((2, 3), keepdim=True)))))
    torch.testing.assert_close(block(x), y * gate)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('out_channels', [8, 12])
def test_block_forms_are_equal(stride, out_channels):
    block = RepVGGBlock(8, out_channels, stride=stride, se_cfg=dict(ratio=4, divisor=1), se_after_act=True)
    randomise(block.double().eval())
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    before = block(x)
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), before, atol=1e-10, rtol=0)


def test_model_forms_are_equal_and_the_heads_gone():
    model, x = build().double(), make_noise().double()
    deployed = reparameterize(model)
    torch.testing.assert_close(deployed(x), model(x), atol=1e-10, rtol=0)
    assert len(model.head.aux_heads) == 3
    assert not any('aux_heads' in key for key in deployed.state_dict())
    # and it is what the deploy form builds
    build_model(read_config(), deploy=True).double().load_state_dict(deployed.state_dict())


def test_deploy_twin_builds_the_same_keys():
    cfg = Config.fromfile(CONFIGS / 'deploy/repvgg-l2pse_deploy.py')
    with torch.device('meta'):
        twin = MODELS.build(cfg.model)
        flipped = build_model(Config.fromfile(CONFIGS / 'repvgg-l2pse_8xb32.py'), deploy=True)
    assert twin.state_dict().keys() == flipped.state_dict().keys()
    assert twin.backbone.out_channels == (2560,)


def test_features_of_a_block():
    backbone = build_backbone(dict(type='RepVGG', arch=TINY_ARCH, out_indices=(3, (2, 1), 0))).eval()
    x = make_noise()
    first, inner, last = backbone(x)
    assert backbone.out_channels == (16, 32, 64)
    expected = backbone.stage_3[1](backbone.stage_3[0](backbone.stage_2(backbone.stage_1(backbone.stem(x)))))
    assert torch.equal(first, backbone.stage_1(backbone.stem(x)))
    assert torch.equal(inner, expected)
    assert torch.equal(last, backbone.stage_4(backbone.stage_3[2](expected)))


@pytest.mark.parametrize('bad', [((2, 3),), ((4, 0),), ((2, 1, 0),), ((2, '1'),)])
def test_bad_block_index_is_an_error(bad):
    with pytest.raises(ValueError, match=r'out_indices must be stages from 0 to 3, .* or pairs \(stage, block\)'):
        build_backbone(dict(type='RepVGG', arch=TINY_ARCH, out_indices=bad))


@pytest.mark.parametrize('deploy', [False, True])
def test_plain_outputs_can_be_scripted_traced_and_exported(deploy):
    backbone, x = build_backbone(dict(type='RepVGG', arch=TINY_ARCH, deploy=deploy)).eval(), make_noise()
    expected = backbone(x)[0]
    for compiled in (
        torch.jit.script(backbone),
        torch.fx.symbolic_trace(backbone),
        torch.export.export(backbone, (x,)).module(),
    ):
        torch.testing.assert_close(compiled(x)[0], expected)


def test_block_outputs_can_be_traced_and_scripting_them_is_an_error():
    backbone, x = build_backbone(dict(type='RepVGG', arch=TINY_ARCH, out_indices=OUT_INDICES)).eval(), make_noise()
    for compiled in (torch.fx.symbolic_trace(backbone), torch.export.export(backbone, (x,)).module()):
        torch.testing.assert_close(compiled(x), backbone(x))
    with pytest.raises(torch.jit.Error, match=r'pairs \(stage, block\) in out_indices can not be scripted'):
        torch.jit.script(backbone)(x)


def test_loss_is_the_main_one_and_a_tenth_of_each_head():
    model, x = build(), make_noise()
    samples = [DataSample().set_gt_label(label) for label in (3, 7)]
    losses = model(x, samples, mode='loss')
    assert list(losses) == ['loss', 'loss_aux_0', 'loss_aux_1', 'loss_aux_2']
    target = torch.tensor([3, 7])
    *features, last = model.backbone(x)
    expected = [F.cross_entropy(model.head.fc(last.mean((2, 3))), target, label_smoothing=0.1)]
    for head, feature in zip(model.head.aux_heads, features, strict=True):
        y = F.relu(head.norm(F.conv2d(feature, head.conv.weight, stride=2, padding=1)))
        expected.append(0.1 * F.cross_entropy(head.fc(y.mean((2, 3))), target, label_smoothing=0.1))
    torch.testing.assert_close(torch.stack(list(losses.values())), torch.stack(expected))


def test_wrong_number_of_features_is_an_error():
    model = build()
    with pytest.raises(ValueError, match=r'must return 3 feature maps for the auxiliary .* got 2: set its out_indices'):
        model.head.compute_aux_scores((torch.zeros(1, 16, 8, 8), torch.zeros(1, 64, 2, 2)))


def test_trains_in_mmpretrains_own_classifier():
    head = dict(type='mmrepvgg.AuxiliaryClsHead', num_classes=10, in_channels=64, aux_channels=(16, 32, 32))
    backbone = dict(type='mmrepvgg.RepVGG', arch=TINY_ARCH, out_indices=OUT_INDICES)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head))
    losses = model(make_noise(), [DataSample().set_gt_label(label) for label in (3, 7)], mode='loss')
    sum(losses.values()).backward()
    assert all(param.grad is not None for param in model.parameters())


@pytest.mark.parametrize(
    'head_type',
    ['LinearClsHead', 'mmpretrain.LinearClsHead', LinearClsHead, 'mmrepvgg.AuxiliaryClsHead', AuxiliaryClsHead],
)
def test_channels_of_the_head_follow_the_backbone_unless_given(head_type):
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='RepVGG', arch='A0', out_indices=(1, 3)),
        head=dict(type=head_type, num_classes=10),
    )
    with torch.device('meta'):
        head = build_classifier(cfg).head
        assert head.fc.in_features == 1280
        if isinstance(head, AuxiliaryClsHead):
            assert [aux.conv.in_channels for aux in head.aux_heads] == [96]
        assert build_classifier({**cfg, 'head': {**cfg['head'], 'in_channels': 7}}).head.fc.in_features == 7


@pytest.mark.parametrize('with_heads', [False, True])
def test_checkpoint_converts_with_and_without_heads(with_heads, tmp_path):
    model = build()
    source, destination = save(model, tmp_path / 'train.pth', with_heads), tmp_path / 'deploy.pth'
    result = reparameterize_checkpoint(read_config(), source, destination)
    assert result.dropped_heads == (HEADS if with_heads else ())
    assert result.train_params - count_params(model) == (0 if with_heads else -count_params(model.head.aux_heads))
    written = read_checkpoint(destination)
    assert not any('aux_heads' in key for key in written.state_dict)
    assert written.meta['mmrepvgg']['dropped_heads'] == list(result.dropped_heads)
    deployed = build_model(read_config(), deploy=True)
    load_weights(deployed, written)
    torch.testing.assert_close(deployed(make_noise()), model(make_noise()))


def test_part_of_the_heads_is_an_error(tmp_path):
    path = tmp_path / 'train.pth'
    weights = {key: value for key, value in build().state_dict().items() if not key.startswith(HEADS[1])}
    torch.save(weights, path)
    with pytest.raises(CheckpointError, match=r'7 missing \(head\.aux_heads\.1\.conv\.weight, \.\.\.\)'):
        load_weights(build_model(read_config(), deploy=False), read_checkpoint(path))


@pytest.fixture
def image_folder(tmp_path):
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label in range(2):
            folder = tmp_path / 'data' / split / str(label)
            folder.mkdir(parents=True)
            for index in range(2):
                cv2.imwrite(str(folder / f'{index}.png'), generator.integers(0, 256, (72, 72, 3), dtype=np.uint8))
    return tmp_path / 'data'


def test_runner_trains_tests_and_the_result_converts(image_folder, tmp_path):
    """With all opt-in pieces of the training loop at once."""
    extras = CONFIGS.parent / '_base_/extras'
    bases = [
        str(CONFIGS / 'repvgg-l2pse_8xb32.py'),
        *(str(extras / f'{name}.py') for name in ('ema', 'amp', 'clip_grad')),
    ]
    path = tmp_path / 'composed.py'
    path.write_text(
        f'_base_ = {bases!r}\ndefault_hooks = _base_.ema\noptim_wrapper = {{**_base_.amp, **_base_.clip_grad}}\n'
    )
    cfg = Config.fromfile(path)
    cfg.model = read_config().model
    cfg.data_preprocessor.num_classes = 10
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(image_folder)
        for step in loader.dataset.pipeline:
            step.update({key: 64 for key in ('scale', 'crop_size') if key in step})
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = cfg.param_scheduler[0]  # the warm-up alone
    cfg.default_hooks.logger.interval = 1
    checkpoint = train(cfg, str(tmp_path / 'work'))
    weights = read_checkpoint(checkpoint).state_dict
    assert all(any(key.startswith(head) for key in weights) for head in HEADS)
    assert read_checkpoint(checkpoint, ema=True).entry == 'state_dict'
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'loss_aux_2: ' in log

    deploy = tmp_path / 'deploy.pth'
    assert reparameterize_checkpoint(cfg, checkpoint, deploy).dropped_heads == HEADS
    results = [evaluate(cfg.copy(), checkpoint, str(tmp_path / 'test'), out=tmp_path / 'train.json')]
    cfg.model.backbone.deploy = True
    results.append(evaluate(cfg.copy(), deploy, str(tmp_path / 'test'), out=tmp_path / 'deploy.json'))
    assert results[0] == results[1]

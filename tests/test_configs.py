"""Every config builds, has its arch's parameters and trains a step; every opt-in piece composes with every recipe."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, TRANSFORMS, DefaultScope
from published import NUM_PARAMS
from tiny_runner import make_runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmrepvgg.registry  # noqa: F401  (registers the models)
from mmrepvgg import QARepVGGBlock, reparameterize
from mmrepvgg.engine.amp import CPUAmpOptimWrapper
from mmrepvgg.models.building import build_model
from mmrepvgg.models.complexity import count_params
from mmrepvgg.models.fake_quant import find_quantizers, set_fake_quantization

CONFIGS = Path(__file__).parents[1] / 'configs'
TRAIN_CONFIGS = sorted((CONFIGS / 'repvgg').glob('*.py'))
DEPLOY_CONFIGS = sorted((CONFIGS / 'repvgg/deploy').glob('*.py'))
EXTRAS = sorted((CONFIGS / '_base_/extras').glob('*.py'))
# One config for each recipe.
RECIPES = [
    'repvgg-a0_8xb32',
    'repvgg-b3_8xb32',
    'repvgg-d2se_8xb32',
    'repvgg-l2pse_8xb32',
    'repvgg-a0_mindcv_8xb32',
    'repvgg-a0_mindspore_8xb512',
]
TINY_ARCH = dict(num_blocks=(1, 1, 12, 1), width_factor=(0.25, 0.125, 0.0625, 0.0625))


@pytest.mark.parametrize('arch', NUM_PARAMS)
def test_arch_has_train_and_deploy_config(arch):
    train = Config.fromfile(CONFIGS / f'repvgg/repvgg-{arch.lower()}_8xb32.py')
    deploy = Config.fromfile(CONFIGS / f'repvgg/deploy/repvgg-{arch.lower()}_deploy.py')
    for cfg, is_deploy in ((train, False), (deploy, True)):
        assert cfg.model.backbone.arch == arch
        assert cfg.model.backbone.get('deploy', False) is is_deploy
        assert 'in_channels' not in cfg.model.head
    assert {**train.model.head} == {**deploy.model.head}
    assert train.test_dataloader == deploy.test_dataloader


@pytest.mark.parametrize(
    'path', [p for p in [*TRAIN_CONFIGS, *DEPLOY_CONFIGS] if 'digits' not in p.stem], ids=lambda p: p.stem
)
def test_config_has_the_parameters_of_its_arch(path):
    cfg = Config.fromfile(path)
    deploy = path in DEPLOY_CONFIGS
    with torch.device('meta'):
        model = build_model(cfg, deploy)
        expected = NUM_PARAMS[cfg.model.backbone.arch][deploy]
        if not deploy and path.stem.startswith('qarepvgg'):
            # a norm behind the sum instead of the 1x1 branch's, and none in the identity branch
            blocks = [module for module in model.modules() if isinstance(module, QARepVGGBlock)]
            expected -= sum(2 * block.out_channels for block in blocks if block.has_identity)
        assert count_params(model) == expected


@pytest.mark.parametrize('arch', ['a0', 'a1', 'a2', 'b0', 'b1', 'b1g4'])
def test_qarepvgg_differs_from_repvgg_in_block_and_decay(arch):
    qarepvgg, repvgg = (Config.fromfile(CONFIGS / f'repvgg/{name}-{arch}_8xb32.py') for name in ('qarepvgg', 'repvgg'))
    assert qarepvgg.model.backbone.pop('block') == 'QARepVGGBlock'
    assert qarepvgg.optim_wrapper.optimizer.pop('weight_decay') == 4e-5
    assert repvgg.optim_wrapper.optimizer.pop('weight_decay') == 1e-4
    assert qarepvgg._cfg_dict == repvgg._cfg_dict
    deploy = Config.fromfile(CONFIGS / f'repvgg/deploy/qarepvgg-{arch}_deploy.py')
    assert deploy.model.backbone == {**repvgg.model.backbone, 'block': 'QARepVGGBlock', 'deploy': True}


@pytest.mark.parametrize('name', ['repvgg-a0_digits', 'repvgg-a0_8xb32'])
def test_quantization_aware_config_fine_tunes_the_ordinary_one(name):
    qat, ordinary = (Config.fromfile(CONFIGS / f'repvgg/{path}.py') for path in (f'{name}_qat', name))
    assert len(find_quantizers(build_model(qat, deploy=False))) == 22
    assert qat.load_from == f'work_dirs/{name}/epoch_{ordinary.train_cfg.max_epochs}.pth'
    epochs = qat.train_cfg.max_epochs
    assert epochs < ordinary.train_cfg.max_epochs / 2
    assert qat.default_hooks.quantization.freeze_ranges_after == epochs - 1
    assert qat.optim_wrapper.optimizer.lr <= 0.1 * ordinary.optim_wrapper.optimizer.lr
    # ranges must not decay where they are learned
    assert qat.optim_wrapper.paramwise_cfg.custom_keys.input_quantizer == dict(decay_mult=0.0)
    assert qat.model.head == ordinary.model.head


@pytest.mark.parametrize('path', TRAIN_CONFIGS, ids=lambda path: path.stem)
def test_the_number_of_epochs_is_one_number(path):
    cfg = Config.fromfile(path)
    *warm_up, decay = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    assert not {'T_max', 'end'} & set(decay)
    assert [phase.end for phase in warm_up] == ([decay.begin] if warm_up else [])


def test_the_runner_lets_the_learning_rate_fall_in_any_number_of_epochs(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'repvgg/repvgg-a0_8xb32.py')
    runner = make_runner(
        tmp_path,
        [],
        param_scheduler=cfg.param_scheduler,
        optim_wrapper=cfg.optim_wrapper,
        train_cfg=dict(by_epoch=True, max_epochs=7),
    )
    runner.train()
    history = runner.message_hub.get_scalar('train/lr').data[0]
    assert len(history) == 7 * 4
    assert max(history) == pytest.approx(0.1, rel=0.02)
    assert history[-1] < 2e-3


@pytest.mark.parametrize('path', TRAIN_CONFIGS, ids=lambda path: path.stem)
def test_config_trains_a_step_and_both_forms_are_equal(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.model.backbone.base_channels = 16  # every block of the arch, at a quarter of its width
    model = assert_trains(cfg, tmp_path).eval()
    # statistics as after a long training: at their initial values a broken fusion passes
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    set_fake_quantization(model, enabled=False)  # the forms are equal before rounding
    with torch.no_grad():
        expected = model(image)
        deployed = reparameterize(model, inplace=True)(image)
    assert expected.isfinite().all()
    assert (deployed - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize('path', [*TRAIN_CONFIGS, *DEPLOY_CONFIGS], ids=lambda path: path.stem)
def test_docstring_opens_with_the_command_and_the_result(path):
    doc = path.read_text().split('"""')[1]
    assert re.search(rf'mmrepvgg (train|test) {path.stem}( |$)', doc, re.M)
    if path in TRAIN_CONFIGS:
        assert 'Top-1 to expect: ' in doc


@pytest.mark.parametrize('recipe', RECIPES)
@pytest.mark.parametrize('extra', EXTRAS, ids=lambda path: path.stem)
def test_extra_composes_with_recipe(extra, recipe, tmp_path):
    cfg = compose(recipe, [extra], tmp_path)
    assert_is_in_effect(extra.stem, cfg)
    if extra.stem == 'random_erasing':
        plain_pipeline = Config.fromfile(CONFIGS / f'repvgg/{recipe}.py').train_dataloader.dataset.pipeline
        assert [
            step for step in cfg.train_dataloader.dataset.pipeline if step.type != 'RandomErasing'
        ] == plain_pipeline
    # nothing but the extra has changed
    plain = Config.fromfile(CONFIGS / f'repvgg/{recipe}.py')
    changed = {key for key in plain if plain[key] != cfg[key]}
    assert len(changed) <= 1, changed
    use_tiny_arch(cfg)
    assert_trains(cfg, tmp_path)


@pytest.mark.parametrize('recipe', RECIPES)
def test_all_extras_compose_together(recipe, tmp_path):
    cfg = compose(
        recipe,
        EXTRAS,
        tmp_path,
        """
default_hooks = _base_.ema
optim_wrapper = {**_base_.amp, **_base_.clip_grad}
data_preprocessor = _base_.cutmix
train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.train_crop, _base_.rand_augment, _base_.random_erasing, dict(type='PackInputs')]
    )
)
""",
    )
    for extra in EXTRAS:
        assert_is_in_effect(extra.stem, cfg)
    use_tiny_arch(cfg)
    assert_trains(cfg, tmp_path)


@pytest.mark.parametrize(('recipe', 'smoothing'), [('repvgg-a0_8xb32', 0), ('repvgg-b3_8xb32', 0.1)])
def test_loss_takes_mixed_labels(recipe, smoothing):
    loss = MODELS.build({**Config.fromfile(CONFIGS / f'repvgg/{recipe}.py').model.head.loss, '_scope_': 'mmpretrain'})
    scores = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    target = 0.3 * torch.eye(10)[[3, 7]] + 0.7 * torch.eye(10)[[7, 2]]
    expected = -((1 - smoothing) * target + smoothing / 10).mul(scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(scores, target, avg_factor=2), expected)


@pytest.mark.parametrize('recipe', RECIPES)
def test_weight_decay_of_every_parameter(recipe):
    cfg = Config.fromfile(CONFIGS / f'repvgg/{recipe}.py')
    use_tiny_arch(cfg)
    model = build_model(cfg, deploy=False)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = wrapper.optimizer.param_groups
    decay_of = {id(param): group['weight_decay'] for group in groups for param in group['params']}
    expected = 4e-5 if 'l2pse' in recipe else 1e-4
    everything_decays = 'mindcv' in recipe or 'mindspore' in recipe
    for name, param in model.named_parameters():
        decays = everything_decays or param.ndim > 1 or name.endswith('branch_norm.weight')
        assert decay_of.pop(id(param)) == (expected if decays else 0), name
    assert not decay_of


@pytest.mark.parametrize(
    ('recipe', 'peak', 'warm_up', 'epochs', 'end'),
    [
        ('repvgg-a0_8xb32', 0.1, 0, 120, 0),
        ('repvgg-b3_8xb32', 0.1, 5, 200, 0),
        ('repvgg-d2se_8xb32', 0.1, 5, 200, 0),
        ('repvgg-l2pse_8xb32', 0.1, 5, 300, 0),
        ('repvgg-a0_mindcv_8xb32', 0.05, 10, 400, 1e-6),
        ('repvgg-a1_mindcv_8xb32', 0.05, 5, 240, 1e-6),
        ('repvgg-a0_mindspore_8xb512', 1.6, 0, 180, 6e-6),
    ],
)
def test_learning_rate_follows_the_recipe(recipe, peak, warm_up, epochs, end):
    cfg = Config.fromfile(CONFIGS / f'repvgg/{recipe}.py')
    assert cfg.train_cfg.max_epochs == epochs
    epoch_length = 10
    rates = compute_learning_rates(cfg, epoch_length)
    assert max(rates) == pytest.approx(peak)
    assert rates[warm_up * epoch_length] == pytest.approx(peak)
    assert rates[-1] == pytest.approx(end, abs=1e-5 * peak)
    middle = (epochs + warm_up) * epoch_length // 2
    assert rates[middle] == pytest.approx((peak + end) / 2)
    if warm_up:
        assert rates[0] < 0.01 * peak
        assert rates[warm_up * epoch_length // 2] == pytest.approx(peak / 2, rel=0.03)
    # by iteration, not by epoch
    assert len(set(rates[middle : middle + epoch_length])) == epoch_length


@pytest.mark.parametrize(
    ('recipe', 'expected'),
    [
        ('repvgg-a0_8xb32', dict(loss='CrossEntropyLoss', nesterov=False, train=224, resize=256, test=224)),
        ('repvgg-b3_8xb32', dict(loss='LabelSmoothLoss', mixup=0.2, added='AutoAugment', train=224, test=224)),
        ('repvgg-d2se_8xb32', dict(loss='LabelSmoothLoss', mixup=0.2, nesterov=True, train=224, resize=320, test=320)),
        ('repvgg-l2pse_8xb32', dict(added='RandAugment', mixup=0.2, nesterov=True, train=256, resize=320, test=320)),
        ('repvgg-a0_mindcv_8xb32', dict(loss='LabelSmoothLoss', added='ColorJitter', interpolation='bicubic')),
        ('repvgg-a1_mindcv_8xb32', dict(loss='LabelSmoothLoss', added='ColorJitter', interpolation=None)),
        ('repvgg-a0_mindspore_8xb512', dict(loss='LabelSmoothLoss', interpolation='bicubic', added=None)),
    ],
)
def test_recipe_is_the_published_one(recipe, expected):
    cfg = Config.fromfile(CONFIGS / f'repvgg/{recipe}.py')
    train, test = (cfg[f'{split}_dataloader'].dataset.pipeline for split in ('train', 'test'))
    augments = cfg.data_preprocessor.get('batch_augments', dict(augments=[]))['augments']
    found = dict(
        loss=cfg.model.head.loss.type,
        mixup=augments[0].alpha if augments else None,
        nesterov=cfg.optim_wrapper.optimizer.get('nesterov', False),
        added=train[3].type if train[3].type != 'PackInputs' else None,
        train=train[1].scale,
        resize=test[1].scale,
        interpolation=test[1].get('interpolation'),
        test=test[2].crop_size,
    )
    assert {key: found[key] for key in expected} == expected
    assert cfg.val_dataloader.dataset.pipeline == test
    if found['loss'] == 'LabelSmoothLoss':
        assert cfg.model.head.loss.label_smooth_val == 0.1


def compose(recipe: str, extras: list[Path], tmp_path: Path, lines: str | None = None) -> Config:
    """A config of ``recipe`` and ``extras``; the lines that put an extra to use are those of its docstring."""
    if lines is None:
        block = extras[0].read_text().split('"""')[1].split('extras/' + extras[0].name + "']\n")[1]
        lines = re.split(r'\n(?=\S)', block)[0].replace('\n    ', '\n').removeprefix('    ')
    bases = [str(CONFIGS / f'repvgg/{recipe}.py'), *map(str, extras)]
    path = tmp_path / 'composed.py'
    path.write_text(f'_base_ = {bases!r}\n{lines}')
    return Config.fromfile(path)


def assert_is_in_effect(extra: str, cfg: Config) -> None:
    pipeline = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert pipeline[-1] == 'PackInputs'
    assert pipeline[:3] == ['LoadImageFromFile', 'mmrepvgg.RandomResizedCrop', 'RandomFlip']
    if extra == 'ema':
        assert cfg.default_hooks.ema == dict(type='EMAHook', momentum=1e-4)
        assert 'checkpoint' in cfg.default_hooks
    elif extra == 'amp':
        assert cfg.optim_wrapper.type == 'mmrepvgg.AmpOptimWrapper'
    elif extra == 'clip_grad':
        assert cfg.optim_wrapper.clip_grad.max_norm == 5
        assert 'optimizer' in cfg.optim_wrapper
    elif extra == 'cutmix':
        assert [augment.type for augment in cfg.data_preprocessor.batch_augments.augments] == ['CutMix']
        assert cfg.data_preprocessor.num_classes == 1000
    elif extra == 'rand_augment':
        assert pipeline[3] == 'RandAugment'
        assert 'AutoAugment' not in pipeline
    elif extra == 'random_erasing':
        assert pipeline[-2] == 'RandomErasing'
    else:
        raise AssertionError(f'{extra} has no check here')


def use_tiny_arch(cfg: Config) -> None:
    cfg.model.backbone.arch = TINY_ARCH


def assert_trains(cfg: Config, tmp_path: Path) -> nn.Module:
    """One step on two images of 64 pixels, through the config's own pipeline: finite losses, changed weights."""
    model = build_model(cfg, deploy=False).train()
    set_fake_quantization(model, enabled=True)  # where the config has it
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    if cfg.optim_wrapper.get('type') == 'mmrepvgg.AmpOptimWrapper' and not torch.cuda.is_available():
        assert isinstance(wrapper, CPUAmpOptimWrapper)
    for group in wrapper.optimizer.param_groups:
        group['lr'] *= 1e-3  # as at the start of a warm-up: the deep archs' first gradients are large
    watched = [next(model.backbone.stem.parameters()), model.head.fc.weight]
    before = [weight.detach().clone() for weight in watched]
    losses = model.train_step(make_batch(cfg, tmp_path), wrapper)
    assert losses['loss'].isfinite()
    for old, new in zip(before, watched, strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)
    return model


def make_batch(cfg: Config, tmp_path: Path) -> dict:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        steps = [{**step} for step in cfg.train_dataloader.dataset.pipeline]
        for step in steps:
            if step['type'] == 'mmrepvgg.RandomResizedCrop':
                step['scale'] = 64
        pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    generator = np.random.default_rng(0)
    samples = []
    for label in (3, 7):
        file = tmp_path / f'{label}.png'
        cv2.imwrite(str(file), generator.integers(0, 256, (80, 100, 3), dtype=np.uint8))
        samples.append(pipeline(dict(img_path=str(file), gt_label=label)))
    return pseudo_collate(samples)


def compute_learning_rates(cfg: Config, epoch_length: int) -> list[float]:
    """The rate of each iteration."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    configs = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    schedulers = []
    for scheduler in configs:
        arguments = {key: value for key, value in scheduler.items() if key not in ('type', 'convert_to_iter_based')}
        arguments.setdefault('end', cfg.train_cfg.max_epochs)  # as the Runner does
        assert scheduler.convert_to_iter_based
        build = PARAM_SCHEDULERS.get(scheduler.type).build_iter_from_epoch
        schedulers.append(build(optimizer=optimizer, epoch_length=epoch_length, **arguments))
    rates = [optimizer.param_groups[0]['lr']]
    for _ in range(cfg.train_cfg.max_epochs * epoch_length - 1):
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        rates.append(optimizer.param_groups[0]['lr'])
    return rates

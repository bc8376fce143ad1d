"""What a training can be made of, each piece alone and all together, by what it does to a few steps."""

import copy
import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image
from tool_runs import ROOT
from torch.nn import functional as F

from mmrepvgg import load_config, reparameterize
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.engine.training import train
from mmrepvgg.models.building import build_model
from studies import epoch_time

COUNT = itertools.count()
KERNEL = 'backbone.stage_4.0.branch_3x3.conv.weight'
CROP = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32)]
PACK = dict(type='PackInputs')


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """24 coloured images of 3 classes, whose pixels are all different from one image to the next."""
    folder = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for index in range(24):
        path = folder / f'train/{index % 3}/{index:02}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder


@HOOKS.register_module()
class Probe(Hook):
    """Takes note of each step: what the model gets and gives, and what becomes of the weights."""

    steps: list[SimpleNamespace]

    def before_train(self, runner: Runner) -> None:
        Probe.steps = []
        self._weights = _copy_parameters(runner)
        model: Any = runner.model

        def note_inputs(model, args, kwargs):
            if kwargs['mode'] == 'loss':
                inputs, samples = kwargs['inputs'].clone(), copy.deepcopy(kwargs['data_samples'])
                Probe.steps.append(SimpleNamespace(inputs=inputs, samples=samples, before=self._weights))

        def note_scores(layer, args, scores):
            if layer.training:
                Probe.steps[-1].scores = scores.detach().clone()

        def note_features(layer, args):
            if layer.training:
                Probe.steps[-1].dtype = args[0][-1].dtype

        model.register_forward_pre_hook(note_inputs, with_kwargs=True)
        model.neck.register_forward_pre_hook(note_features)
        model.head.fc.register_forward_hook(note_scores)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        step = Probe.steps[-1]
        self._weights = _copy_parameters(runner)
        step.after, step.loss = self._weights, outputs['loss'].item()
        (step.lr,) = set(runner.optim_wrapper.get_lr()['lr'])


def _copy_parameters(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: param.detach().clone() for name, param in runner.model.named_parameters()}


@pytest.fixture
def cfg(images) -> Config:
    return make_config(images)


def make_config(images: Path) -> Config:
    """4 steps of 6 images, by plain SGD of a constant learning rate, and a validation."""
    cfg = load_config('repvgg-a0_digits')
    cfg.model.backbone.arch = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.125] * 4)
    cfg.model.head = dict(type='LinearClsHead', num_classes=3, loss=dict(type='CrossEntropyLoss'))
    cfg.data_preprocessor.num_classes = 3
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=6, num_workers=0)
        loader.dataset.update(data_root=str(images), data_prefix='train', pipeline=[*CROP, PACK])
    cfg.val_evaluator.topk = 1
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
    cfg.param_scheduler = None
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 2
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='mmengine.Probe')]
    return cfg


def run(cfg: Config, tmp_path: Path, **options) -> SimpleNamespace:
    """Train, and check that what was trained is switched exactly."""
    cfg = copy.deepcopy(cfg)
    name = f'pieces_{next(COUNT)}'
    cfg.experiment_name, work_dir = name, tmp_path / name
    written = train(cfg, str(work_dir), **options)
    assert len(Probe.steps) == 4
    checkpoint = read_checkpoint(written)
    model = build_model(cfg, deploy=False).double().eval()
    model.load_state_dict(checkpoint.state_dict)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(reparameterize(model)(x), model(x), atol=1e-10, rtol=0)
    (records,) = work_dir.glob('*/vis_data/scalars.json')
    return SimpleNamespace(
        steps=Probe.steps,
        state_dict=checkpoint.state_dict,
        folder=work_dir,
        records=[json.loads(line) for line in records.read_text().splitlines()],
    )


def read_extra(name: str) -> Any:
    return Config.fromfile(ROOT / f'configs/_base_/extras/{name}.py')[name]


@pytest.fixture(scope='module')
def plain(images, tmp_path_factory) -> SimpleNamespace:
    return run(make_config(images), tmp_path_factory.mktemp('plain'))


def augment(cfg: Config, *transforms: dict) -> None:
    cfg.train_dataloader.dataset.pipeline = [*CROP, *transforms, PACK]


def test_mixed_precision(plain, cfg, tmp_path):
    found = run(cfg, tmp_path, amp=True)
    assert plain.steps[0].dtype == torch.float32
    assert found.steps[0].dtype == torch.bfloat16
    assert found.steps[0].scores.dtype == torch.bfloat16
    assert found.steps[0].loss == pytest.approx(plain.steps[0].loss, rel=0.02)


def test_the_learning_rate_scales(plain, cfg, tmp_path):
    found = run(cfg, tmp_path, auto_scale_lr=True)  # the config has a base of 64
    assert [step.lr for step in plain.steps] == [0.1] * 4
    assert [step.lr for step in found.steps] == pytest.approx([0.1 * 6 / 64] * 4)
    change, expected = (run.steps[0].after[KERNEL] - run.steps[0].before[KERNEL] for run in (found, plain))
    torch.testing.assert_close(change, expected * 6 / 64, atol=1e-7, rtol=1e-3)


def test_gradients_accumulate(cfg, tmp_path):
    cfg.optim_wrapper.accumulative_counts = 2
    steps = run(cfg, tmp_path).steps
    assert [torch.equal(step.before[KERNEL], step.after[KERNEL]) for step in steps] == [True, False, True, False]


def test_ema_is_what_is_saved(cfg, tmp_path):
    cfg.default_hooks.ema = dict(type='EMAHook', momentum=0.25)
    found = run(cfg, tmp_path)
    first, *later = [step.after[KERNEL] for step in found.steps]
    mean = first
    for weights in later:
        mean = 0.75 * mean + 0.25 * weights
    assert not torch.allclose(mean, later[-1])
    torch.testing.assert_close(found.state_dict[KERNEL], mean)


def test_gradients_are_clipped(plain, cfg, tmp_path):
    cfg.optim_wrapper.clip_grad = dict(max_norm=0.01)
    found = run(cfg, tmp_path)
    assert measure_change(plain.steps[0]) > 0.1 * 0.02
    for step, record in zip(found.steps, found.records, strict=False):
        assert measure_change(step) == pytest.approx(0.1 * 0.01, rel=1e-3)
        assert record['grad_norm'] > 0.02


def measure_change(step: SimpleNamespace) -> float:
    return torch.cat([(step.after[name] - step.before[name]).flatten() for name in step.after]).norm().item()


def test_labels_are_smoothed(plain, cfg, tmp_path):
    cfg.model.head.loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    for found, smoothing in ((plain, 0.0), (run(cfg, tmp_path), 0.1)):
        step = found.steps[0]
        labels = torch.cat([sample.gt_label for sample in step.samples])
        assert step.loss == pytest.approx(F.cross_entropy(step.scores, labels, label_smoothing=smoothing).item())


def test_mixup(plain, cfg, tmp_path):
    cfg.data_preprocessor.batch_augments = dict(augments=[dict(type='Mixup', alpha=1.0)])
    for step, original in zip(run(cfg, tmp_path).steps, plain.steps, strict=True):
        # each image is a sum of original ones, by the row of a matrix
        shares = torch.linalg.lstsq(original.inputs.flatten(1).T, step.inputs.flatten(1).T).solution.T
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
        assert 0.01 < shares.diagonal().min() < 0.99
        assert_scores(step, shares @ get_targets(original))


def test_cutmix(plain, cfg, tmp_path):
    cfg.data_preprocessor.batch_augments = read_extra('cutmix').batch_augments
    for step, original in zip(run(cfg, tmp_path).steps, plain.steps, strict=True):
        changed = (step.inputs != original.inputs).any(1)  # (N, H, W)
        box = changed.any(0)
        assert_is_rectangle(box)
        partners = [
            next(other for other in range(6) if torch.equal(image[:, box], original.inputs[other][:, box]))
            for image in step.inputs
        ]
        area, targets = box.float().mean(), get_targets(original)
        assert 0 < area < 1
        assert_scores(step, (1 - area) * targets + area * targets[partners])


def get_targets(step: SimpleNamespace) -> torch.Tensor:
    return F.one_hot(torch.cat([sample.gt_label for sample in step.samples]), 3).float()


def assert_scores(step: SimpleNamespace, expected: torch.Tensor) -> None:
    """What the loss compares with."""
    torch.testing.assert_close(torch.stack([sample.gt_score for sample in step.samples]), expected, atol=1e-4, rtol=0)
    assert step.loss == pytest.approx(F.cross_entropy(step.scores, expected).item(), rel=1e-3)


def assert_is_rectangle(mask: torch.Tensor) -> None:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    assert mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


@pytest.mark.parametrize(
    'transform', [dict(type='AutoAugment', policies='imagenet'), read_extra('rand_augment')], ids=lambda x: x['type']
)
def test_policies(plain, cfg, tmp_path, transform):
    augment(cfg, transform)
    found = run(cfg, tmp_path)
    pairs = zip(found.steps, plain.steps, strict=True)
    changed = torch.cat([(step.inputs != original.inputs).flatten(1).any(1) for step, original in pairs])
    assert changed.float().mean() > 0.5


def test_random_erasing(plain, cfg, tmp_path):
    augment(cfg, {**read_extra('random_erasing'), 'erase_prob': 1.0})
    for step, original in zip(run(cfg, tmp_path).steps, plain.steps, strict=True):
        for mask in (step.inputs != original.inputs).any(1):
            assert_is_rectangle(mask)
            assert 0.01 < mask.float().mean() < 0.5


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_colour_jitter_with_hue(plain, cfg, tmp_path, backend):
    """NumPy 2 would end it at the first shift below 0. The hue alone changes neither extreme of a pixel."""
    augment(cfg, dict(type='ColorJitter', hue=(-0.4, -0.2), backend=backend))
    for step, original in zip(run(cfg, tmp_path).steps, plain.steps, strict=True):
        # (N, C, H, W), as read
        found, expected = (
            x * torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
            + torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
            for x in (step.inputs, original.inputs)
        )
        for extreme in (torch.amax, torch.amin):
            torch.testing.assert_close(extreme(found, 1), extreme(expected, 1), atol=4, rtol=0)
        assert (found - expected).abs().mean() > 40


def test_all_together(plain, cfg, tmp_path):
    mixes = [dict(type='Mixup', alpha=1.0), *read_extra('cutmix').batch_augments.augments]
    cfg.data_preprocessor.batch_augments = dict(augments=mixes)
    augment(
        cfg,
        dict(type='AutoAugment', policies='imagenet'),
        read_extra('rand_augment'),
        dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.4),
        {**read_extra('random_erasing'), 'erase_prob': 1.0},
    )
    cfg.model.head.loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    cfg.optim_wrapper.update(accumulative_counts=2, clip_grad=dict(max_norm=0.01))
    cfg.default_hooks.ema = dict(type='EMAHook', momentum=0.25)
    cfg.compile = dict(backend='aot_eager')
    found = run(cfg, tmp_path, amp=True, auto_scale_lr=True, tensorboard=True)
    steps = found.steps
    assert [torch.equal(step.before[KERNEL], step.after[KERNEL]) for step in steps] == [True, False, True, False]
    assert measure_change(steps[1]) == pytest.approx(0.1 * 6 / 64 * 0.01, rel=1e-2)
    assert steps[0].dtype == torch.bfloat16
    assert not torch.equal(found.state_dict[KERNEL], steps[-1].after[KERNEL])
    assert any((sample.gt_score < 1).all() for sample in steps[0].samples)
    assert list(found.folder.glob('*/vis_data/events.out.tfevents.*'))


def test_a_record_of_every_step(plain):
    *steps, validation = plain.records
    assert [record['step'] for record in steps] == [1, 2, 3, 4]
    assert [record['loss'] for record in steps] == pytest.approx([step.loss for step in plain.steps])
    assert all(record['lr'] == 0.1 and record['time'] > record['data_time'] > 0 for record in steps)
    assert 'accuracy/top1' in validation


def test_a_record_of_every_step_of_a_training_by_iterations(cfg, tmp_path):
    cfg.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=4)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=False)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.log_processor = dict(by_epoch=False)
    *steps, validation = run(cfg, tmp_path).records
    assert [record['step'] for record in steps] == [record['iter'] for record in steps] == [1, 2, 3, 4]
    assert [record['loss'] for record in steps] == pytest.approx([step.loss for step in Probe.steps])
    assert 'accuracy/top1' in validation


def test_tensorboard_has_the_same(plain, cfg, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = run(cfg, tmp_path, tensorboard=True)
    (path,) = found.folder.glob('*/vis_data/events.out.tfevents.*')
    events = EventAccumulator(str(path)).Reload().Scalars('loss')
    assert [event.step for event in events] == [1, 2, 3, 4]
    assert [event.value for event in events] == pytest.approx([step.loss for step in plain.steps], rel=1e-5)


def test_pictures_of_the_validation_and_another_backend(cfg, tmp_path):
    cfg.merge_from_dict({'visualizer.vis_backends.0.type': 'TensorboardVisBackend'})
    cfg.default_hooks.visualization = dict(
        type='VisualizationHook', enable=True, interval=1, out_dir=str(tmp_path / 'pictures')
    )
    cfg.experiment_name = f'pieces_{next(COUNT)}'
    train(cfg, str(tmp_path))
    assert len(list(tmp_path.glob('*/vis_data/events.out.tfevents.*'))) == 1
    assert list(tmp_path.glob('pictures/*.png'))


def test_the_time_of_a_training_is_shared_out(cfg, tmp_path):
    cfg.experiment_name = f'pieces_{next(COUNT)}'
    begin = time.perf_counter()
    seconds = epoch_time.measure(cfg, str(tmp_path))
    assert seconds.keys() == set(epoch_time.PARTS)
    assert min(seconds.values()) > 0
    assert sum(seconds.values()) < time.perf_counter() - begin
    (records,) = tmp_path.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in records.read_text().splitlines()][:4]
    # mmengine's timer also has the hooks that run before itself
    assert seconds[epoch_time.STEP] == pytest.approx(sum(step['time'] - step['data_time'] for step in steps), rel=0.2)


def test_without_tensorboard(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr('mmrepvgg.engine.logs.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'`tensorboard` needs .* pip install "mmrepvgg\[tensorboard\]"'):
        train(cfg, str(tmp_path), tensorboard=True)


def test_the_console_is_short(cfg, tmp_path, capsys):
    cfg.optim_wrapper.optimizer.weight_decay = 1e-4
    cfg.optim_wrapper.paramwise_cfg = dict(bias_decay_mult=0.0)
    found = run(cfg, tmp_path)
    out, err = capsys.readouterr()
    assert not out, 'stdout is for results'
    lines = err.splitlines()
    (log,) = found.folder.glob('*/*.log')
    for text in ('System environment', 'ChannelsLastHook', 'paramwise_options', 'branch_3x3'):
        assert text in log.read_text()
        assert not [line for line in lines if text in line]
    assert len(lines) < 15
    # the steps that are left, at the mean of those that were
    (line,) = (line for line in lines if 'Epoch(train) [1][2/4]' in line)
    seconds = sum(record['time'] for record in found.records[:2])
    assert f'eta: 0:00:{int(seconds):02}' in line
    (config,) = (line.split(' config is in ')[1].split(',')[0] for line in lines if 'whole config is in' in line)
    assert Config.fromfile(config).optim_wrapper == cfg.optim_wrapper

"""Trainings of a very small network on a few digits: where they start, what they refuse, what they answer."""

import copy
import itertools
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from network_files import NARROW

from mmrepvgg import load_config
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.data.images import UnreadableImageError
from mmrepvgg.data.layout import DataError
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.engine import training
from mmrepvgg.engine.testing import evaluate
from mmrepvgg.models.building import build_model
from mmrepvgg.quantization.analysis.analyze import analyze
from mmrepvgg.quantization.quantize import quantize_model
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.reparam.comparison import compare_forms
from mmrepvgg.runtimes.classifier import make_exported_config
from mmrepvgg.runtimes.export import export_model

COUNT = itertools.count()
KERNEL = 'backbone.stage_4.0.branch_3x3.conv.weight'


@pytest.fixture
def cfg(digit_images) -> Config:
    """One epoch of two iterations in which the kernels stay as they are."""
    cfg = load_config('repvgg-a0_digits')
    cfg.model.backbone.arch = NARROW
    for split, indices in (('train', 64), ('val', 20), ('test', 20)):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=32, num_workers=0)  # and persistent_workers, which torch refuses without workers
        loader.dataset.update(data_root=str(digit_images), indices=indices)
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


def train(cfg: Config, work_dir: Path, **options) -> str | None:
    """Train under a name of its own: within a second mmengine would take two trainings for one."""
    cfg = copy.deepcopy(cfg)
    cfg.experiment_name = f'training_{next(COUNT)}'
    return training.train(cfg, str(work_dir), **options)


def save(cfg: Config, path: Path, seed: int, **content) -> torch.Tensor:
    """A checkpoint of other weights than a training begins with; gives one of its kernels."""
    torch.manual_seed(seed)
    weights = build_model(cfg, deploy=False).state_dict()
    torch.save(dict(state_dict=weights, **content), path)
    return weights[KERNEL]


def read_kernel(path: str | Path) -> torch.Tensor:
    return read_checkpoint(path).state_dict[KERNEL]


def read_log(work_dir: Path) -> str:
    return '\n'.join(log.read_text() for log in sorted(work_dir.glob('*/*.log')))


class TestStart:
    def test_a_job_that_is_to_be_resumed_begins_with_load_from(self, cfg, tmp_path):
        expected = save(cfg, tmp_path / 'trained.pth', seed=7)
        cfg.load_from = str(tmp_path / 'trained.pth')
        written = train(cfg, tmp_path / 'work', resume=True)
        assert torch.equal(read_kernel(written), expected)
        assert 'has no checkpoint to resume from: starting with the weights of' in read_log(tmp_path / 'work')

    def test_and_goes_on_with_its_own_checkpoint_afterwards(self, cfg, tmp_path):
        save(cfg, tmp_path / 'trained.pth', seed=7)
        expected = read_kernel(train(cfg, tmp_path / 'work'))
        cfg.load_from = str(tmp_path / 'trained.pth')
        cfg.train_cfg.max_epochs = 2
        second = train(cfg, tmp_path / 'work', resume=True)
        assert Path(second).name == 'epoch_2.pth'
        assert torch.equal(read_kernel(second), expected)
        assert 'resumed epoch: 1' in read_log(tmp_path / 'work')

    @pytest.mark.parametrize('resume', [False, True])
    def test_resume_in_the_config_goes_on_with_load_from(self, cfg, tmp_path, resume):
        first = train(cfg, tmp_path / 'first')
        cfg.update(load_from=first, resume=True)
        cfg.train_cfg.max_epochs = 2
        second = train(cfg, tmp_path / 'second', resume=resume)
        assert Path(second).name == 'epoch_2.pth'
        assert torch.equal(read_kernel(second), read_kernel(first))
        assert f'resuming from {first}' in read_log(tmp_path / 'second')

    def test_a_copied_folder_is_resumed_from_itself(self, cfg, tmp_path):
        first = train(cfg, tmp_path / 'first')
        Path(first).parent.rename(tmp_path / 'second')
        written = train(cfg, tmp_path / 'second', resume=True)
        assert written == str(tmp_path / 'second/epoch_1.pth')

    def test_what_a_checkpoint_says_is_not_run(self, cfg, tmp_path):
        content = torch.load(train(cfg, tmp_path / 'work'), weights_only=True)
        content['meta']['config'] = f"a = __import__('pathlib').Path({str(tmp_path / 'proof')!r}).write_text('x')"
        torch.save(content, tmp_path / 'attack.pth')
        cfg.train_cfg.max_epochs = 2
        train(cfg, tmp_path / 'other', resume=str(tmp_path / 'attack.pth'))
        assert not (tmp_path / 'proof').exists()

    def test_weights_alone_are_not_resumed(self, cfg, tmp_path):
        save(cfg, tmp_path / 'weights.pth', seed=0)
        with pytest.raises(CheckpointError, match=r'weights\.pth holds no state of a training, .* `load_from`'):
            train(cfg, tmp_path / 'work', resume=str(tmp_path / 'weights.pth'))

    def test_weights_that_the_runner_would_not_find(self, cfg, tmp_path):
        weights = build_model(cfg, deploy=False).state_dict()
        torch.save(dict(model=weights), tmp_path / 'model.pth')
        cfg.load_from = str(tmp_path / 'model.pth')
        with pytest.raises(CheckpointError, match='has its weights in model, where'):
            train(cfg, tmp_path / 'work')


class TestAnswer:
    def test_no_checkpoint_hook_writes_no_checkpoint(self, cfg, tmp_path):
        train(cfg, tmp_path / 'work')
        cfg.default_hooks.checkpoint = None
        assert train(cfg, tmp_path / 'work') is None

    def test_a_training_that_is_done_is_that_of_before(self, cfg, tmp_path):
        first = train(cfg, tmp_path / 'work')
        assert train(cfg, tmp_path / 'work', resume=True) == first


class TestRefusals:
    """Before the first epoch, in one line."""

    def test_more_classes_than_the_model_has(self, cfg, tmp_path):
        cfg.model.head.num_classes = 5
        cfg.val_evaluator.topk = 1
        with pytest.raises(DataError, match=r'has 10 classes .* the model 5: .* set `model\.head\.num_classes=10`'):
            train(cfg, tmp_path / 'work')

    def test_fewer_classes_are_logged(self, cfg, tmp_path):
        cfg.model.head.num_classes = 12
        assert train(cfg, tmp_path / 'work')
        assert 'has 10 classes (0, 1, 2, ...) and the model 12' in read_log(tmp_path / 'work')

    def test_a_top_5_of_three_classes(self, cfg, tmp_path):
        cfg.model.head.num_classes = 3
        with pytest.raises(ValueError, match=r'topk of val_evaluator must be at most .* 3, got'):
            train(cfg, tmp_path / 'work')
        checkpoint = tmp_path / 'trained.pth'
        save(cfg, checkpoint, seed=0)
        with pytest.raises(ValueError, match='topk of test_evaluator must be at most'):
            evaluate(cfg, checkpoint, str(tmp_path / 'test'))

    def test_fewer_images_than_a_batch(self, cfg, tmp_path):
        cfg.train_dataloader.dataset.indices = 20
        with pytest.raises(DataError, match='the 20 training images do not fill one batch'):
            train(cfg, tmp_path / 'work')
        assert not list((tmp_path / 'work').glob('*.pth'))


class TestClassesOfAnotherTraining:
    """Folders in the right number, one of them of another class: every label behind it would be wrong."""

    @pytest.fixture
    def renamed(self, digit_images, tmp_path) -> Path:
        shutil.copytree(digit_images / 'val', tmp_path / 'data/val')
        (tmp_path / 'data/val/0').rename(tmp_path / 'data/val/x')
        return tmp_path / 'data'

    MESSAGE = "class 0 is '1' in the data and '0' in the model; only in the data: x; only in the model: 0"

    def test_they_are_refused(self, cfg, renamed, tmp_path):
        names = list('0123456789')
        save(cfg, tmp_path / 'trained.pth', seed=0, meta=dict(dataset_meta=dict(classes=names)))
        save(cfg, tmp_path / 'mmcls.pth', seed=0, meta=dict(CLASSES=names))
        reparameterize_checkpoint(cfg, tmp_path / 'trained.pth', tmp_path / 'deploy.pth')
        export_model(cfg, tmp_path / 'trained.pth', tmp_path / 'net.ts')
        cfg.test_dataloader.dataset.data_root = str(renamed)
        exported = make_exported_config(cfg, tmp_path / 'net.ts')
        for source in (tmp_path / 'trained.pth', tmp_path / 'mmcls.pth', exported):
            with pytest.raises(DataError, match=self.MESSAGE):
                evaluate(copy.deepcopy(cfg), source, str(tmp_path / 'test'))
        with pytest.raises(DataError, match=self.MESSAGE):
            compare_forms(cfg, tmp_path / 'trained.pth', tmp_path / 'deploy.pth')
        with pytest.raises(DataError, match=self.MESSAGE):
            quantize_model(cfg, tmp_path / 'trained.pth', tmp_path / 'net.onnx')
        with pytest.raises(DataError, match=self.MESSAGE):
            analyze(cfg, tmp_path / 'trained.pth', split='test')


def test_a_damaged_image_is_named_by_the_comparison(cfg, digit_images, tmp_path):
    save(cfg, tmp_path / 'trained.pth', seed=0)
    reparameterize_checkpoint(cfg, tmp_path / 'trained.pth', tmp_path / 'deploy.pth')
    shutil.copytree(digit_images / 'val', tmp_path / 'data/val')
    damaged = sorted((tmp_path / 'data/val/0').iterdir())[0]
    damaged.write_bytes(b'')
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'data')
    with pytest.raises(UnreadableImageError, match=f'{damaged} can not be read: .*empty'):
        compare_forms(cfg, tmp_path / 'trained.pth', tmp_path / 'deploy.pth')


def test_a_report_that_can_not_be_written_is_noticed_before_the_test(cfg, tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(PermissionError, match='can not be written: no file can be made in .*file'):
        evaluate(cfg, 'no.pth', str(tmp_path / 'test'), out=tmp_path / 'file/report.json')
    with pytest.raises(IsADirectoryError, match='give the name of a file'):
        evaluate(cfg, 'no.pth', str(tmp_path / 'test'), out=tmp_path)


def test_several_labels_an_image_have_no_such_metrics(cfg, tmp_path):
    cfg.model.head = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=128)
    for options in (dict(metrics=['accuracy']), dict(out=tmp_path / 'out.json')):
        with pytest.raises(ValueError, match='one label, and a MultiLabelLinearClsHead gives several'):
            evaluate(cfg, 'no.pth', str(tmp_path / 'test'), **options)
    with pytest.raises(ValueError, match='one label, and a MultiLabelLinearClsHead gives several'):
        make_exported_config(cfg, 'no.ts')
    with pytest.raises(ValueError, match='one label, and a'):
        next(iterate_samples(cfg, 'test'))


def test_a_training_that_ends_within_its_warm_up(cfg, tmp_path):
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=5, convert_to_iter_based=True),
    ]
    with pytest.raises(ValueError, match=r'max_epochs must be above 5, where the warm-up .* ends, got 1'):
        train(cfg, tmp_path)
    cfg.train_cfg.max_epochs = 0
    with pytest.raises(ValueError, match='max_epochs must be at least 1, got 0'):
        train(cfg, tmp_path)
    assert not list(tmp_path.iterdir())

"""Trainings of a very small network on a few digits: where they start, what they refuse, what they answer."""

import argparse
import copy
import functools
import http.server
import io
import itertools
import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend, FileClient, register_backend
from network_files import NARROW

from mmrepvgg import load_config
from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.data.images import UnreadableImageError
from mmrepvgg.data.layout import DataError
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.engine import training
from mmrepvgg.engine.testing import evaluate
from mmrepvgg.models.building import build_model
from mmrepvgg.models.forms import CheckpointFormError
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

    @pytest.mark.parametrize('name', ['best_accuracy_top1_epoch_1.pth', 'epoch_1.pth'])
    def test_a_checkpoint_without_the_optimizer_is_not_resumed(self, cfg, tmp_path, name):
        cfg.default_hooks.checkpoint.save_optimizer = 'best' in name
        train(cfg, tmp_path / 'work')
        cfg.train_cfg.max_epochs = 2
        with pytest.raises(CheckpointError, match=f'{name} has no optimizer, so .* `load_from`'):
            train(cfg, tmp_path / 'work', resume=str(tmp_path / 'work' / name))

    def test_another_number_of_classes_is_not_resumed(self, cfg, tmp_path):
        first = train(cfg, tmp_path / 'work')
        cfg.model.head.num_classes = 12
        with pytest.raises(
            CheckpointError, match=r'has head\.fc\.weight with the shape \(10, .*model \(12, .*`load_from`'
        ):
            train(cfg, tmp_path / 'other', resume=first)
        cfg.load_from = first
        assert train(cfg, tmp_path / 'other')

    def test_a_broken_checkpoint_is_skipped_and_named(self, cfg, tmp_path):
        cfg.train_cfg.max_epochs = 2
        cfg.default_hooks.checkpoint.max_keep_ckpts = 2
        second = Path(train(cfg, tmp_path / 'work'))
        second.write_bytes(second.read_bytes()[:-100])
        assert train(cfg, tmp_path / 'work', resume=True) == str(second)
        assert read_checkpoint(second).meta['epoch'] == 2
        log = read_log(tmp_path / 'work')
        assert f'skipped: {second} is damaged or incomplete' in log
        assert 'resumed epoch: 1' in log
        second.write_bytes(second.read_bytes()[:-100])
        with pytest.raises(CheckpointError, match=f'{second} is damaged or incomplete'):
            train(cfg, tmp_path / 'work', resume=str(second))

    def test_the_best_checkpoint_of_another_folder_is_not_removed(self, cfg, tmp_path):
        cfg.val_dataloader.dataset.indices = list(range(0, 360, 18))  # of all classes
        first = train(cfg, tmp_path / 'first')
        best = tmp_path / 'first/best_accuracy_top1_epoch_1.pth'
        assert best.exists()
        cfg.train_cfg.max_epochs = 2
        cfg.default_hooks.checkpoint.save_best = 'accuracy/top5'  # which is higher
        train(cfg, tmp_path / 'second', resume=first)
        assert (tmp_path / 'second/best_accuracy_top5_epoch_2.pth').exists()
        assert best.exists()

    @pytest.mark.parametrize(
        ('change', 'told'),
        [
            (
                {'head.fc.weight': (7, None), 'head.fc.bias': (7,)},
                r'head\.fc\.weight is \(7, .* in the weights and \(10, ',
            ),
            (
                {'head.fc.weight': None, 'head.fc.bias': None},
                r'the weights have no head\.fc\.weight; the head starts anew',
            ),
            (
                {'head.aux.weight': (3,)},
                r'1 tensors of a head are not in this model \(head\.aux\.weight, \.\.\.\); all',
            ),
        ],
    )
    def test_another_head_is_left_out_in_one_line(self, cfg, tmp_path, change, told):
        expected = save(cfg, tmp_path / 'x.pth', seed=7)
        weights = read_checkpoint(tmp_path / 'x.pth').state_dict
        width = weights['head.fc.weight'].shape[1]
        for key, shape in change.items():
            weights.pop(key, None)
            if shape:
                weights[key] = torch.ones([size or width for size in shape])
        torch.save(dict(state_dict=weights), tmp_path / 'other.pth')
        cfg.load_from = str(tmp_path / 'other.pth')
        assert torch.equal(read_kernel(train(cfg, tmp_path / 'work')), expected)
        log = read_log(tmp_path / 'work')
        assert len(re.findall(f'fine-tuning: {told}', log)) == 1
        assert 'do not match exactly' not in log

    def test_load_from_in_deploy_form(self, cfg, tmp_path):
        save(cfg, tmp_path / 'trained.pth', seed=0)
        reparameterize_checkpoint(cfg, tmp_path / 'trained.pth', tmp_path / 'deploy.pth')
        cfg.load_from = str(tmp_path / 'deploy.pth')
        with pytest.raises(
            CheckpointFormError, match=r'deploy\.pth: .* is in deploy form .*`model\.backbone\.deploy=True`'
        ):
            train(cfg, tmp_path / 'work')

    def test_a_model_in_deploy_form_does_not_start_from_random_weights(self, cfg, tmp_path):
        cfg.model.backbone.deploy = True
        with pytest.raises(CheckpointFormError, match=r'deploy form, which .*`model\.backbone\.deploy=False`'):
            train(cfg, tmp_path / 'work')
        trained = copy.deepcopy(cfg)
        trained.model.backbone.deploy = False
        save(trained, tmp_path / 'trained.pth', seed=0)
        reparameterize_checkpoint(trained, tmp_path / 'trained.pth', tmp_path / 'deploy.pth')
        cfg.load_from = str(tmp_path / 'deploy.pth')
        with pytest.warns(UserWarning, match='training a RepVGG that was built with deploy=True'):
            assert train(cfg, tmp_path / 'work') == str(tmp_path / 'work/epoch_1.pth')

    def test_load_from_an_address(self, cfg, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
        expected = save(cfg, tmp_path / 'trained.pth', seed=7)
        (tmp_path / 'damaged.pth').write_bytes((tmp_path / 'trained.pth').read_bytes()[:-100])
        handler = functools.partial(SilentHandler, directory=str(tmp_path))
        with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                address = f'http://127.0.0.1:{server.server_port}'
                cfg.load_from = f'{address}/trained.pth'
                assert torch.equal(read_kernel(train(cfg, tmp_path / 'work')), expected)
                assert f'starting with the weights of {address}/trained.pth' in read_log(tmp_path / 'work')
                for name, message in {'damaged.pth': 'is damaged or incomplete', 'none.pth': '404'}.items():
                    cfg.load_from = f'{address}/{name}'
                    with pytest.raises(CheckpointError, match=message):
                        train(cfg, tmp_path / 'work')
            finally:
                server.shutdown()
        cfg.load_from = f'{address}/trained.pth'
        with pytest.raises(CheckpointError, match=r'trained\.pth can not be fetched: '):
            train(cfg, tmp_path / 'work')
        cfg.load_from = 's3://bucket/trained.pth'
        with pytest.raises(CheckpointError, match=r'must be a file or an address with http://.*got s3://bucket'):
            train(cfg, tmp_path / 'work')

    @pytest.mark.parametrize(
        ('entry', 'prefix'), [('model', ''), ('net', '_orig_mod.module.'), (None, 'model.'), ('state_dict', 'module.')]
    )
    def test_weights_that_mmengine_would_not_find(self, cfg, tmp_path, entry, prefix):
        weights = {f'{prefix}{key}': value for key, value in build_model(cfg, deploy=False).state_dict().items()}
        content = dict(args=argparse.Namespace(lr=0.1), **(weights if entry is None else {entry: weights}))
        torch.save(content, tmp_path / 'model.pth')
        cfg.load_from = str(tmp_path / 'model.pth')
        written = train(cfg, tmp_path / 'work')
        assert torch.equal(read_kernel(written), weights[f'{prefix}{KERNEL}'])

    @pytest.mark.parametrize(
        ('inner', 'prefix'), [('backbone.', 'model.backbone'), ('backbone.', 'backbone.'), ('', 'model'), ('', None)]
    )
    def test_a_prefix_with_and_without_the_name_of_a_wrapper(self, cfg, tmp_path, inner, prefix):
        weights = build_model(cfg, deploy=False).backbone.state_dict()
        path = tmp_path / 'lightning.pth'
        torch.save(dict(state_dict={f'model.{inner}{key}': value for key, value in weights.items()}), path)
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix=prefix)
        kernel = read_kernel(train(cfg, tmp_path / 'work'))
        assert torch.equal(kernel, weights[KERNEL.removeprefix('backbone.')])

    def test_objects_that_torch_refuses_are_left_out_on_resuming(self, cfg, tmp_path):
        content = torch.load(train(cfg, tmp_path / 'work'), weights_only=True)
        content['meta']['args'] = argparse.Namespace(lr=0.1)
        content['message_hub']['runtime_info']['folder'] = Path('a')
        torch.save(content, tmp_path / 'objects.pth')
        cfg.train_cfg.max_epochs = 2
        written = train(cfg, tmp_path / 'other', resume=str(tmp_path / 'objects.pth'))
        assert Path(written).name == 'epoch_2.pth'
        # and are not written again
        assert 'folder' not in torch.load(written, weights_only=True)['message_hub']['runtime_info']


class TestScheduleOfAResumedTraining:
    """The learning rates are those of its config, step by step, and not those of the checkpoint's."""

    WARM_UP = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=1, convert_to_iter_based=True),
    ]

    @pytest.fixture
    def cfg(self, cfg) -> Config:
        cfg.optim_wrapper.optimizer.lr = 0.1
        cfg.optim_wrapper.paramwise_cfg.custom_keys['head'] = dict(lr_mult=0.5)
        cfg.default_hooks.checkpoint.update(max_keep_ckpts=-1, save_best=None)
        cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
        return cfg

    @pytest.mark.parametrize('scheduler', [WARM_UP, dict(type='OneCycleLR', eta_max=1.0)])
    def test_more_epochs(self, cfg, tmp_path, scheduler):
        by_iterations = dict(by_epoch=True, convert_to_iter_based=True)
        cfg.param_scheduler = dict(by_iterations, **scheduler) if isinstance(scheduler, dict) else scheduler
        rates = {}
        for name, epochs in dict(short=2, long=4).items():
            cfg.train_cfg.max_epochs = epochs
            if 'eta_max' in scheduler:
                cfg.param_scheduler.total_steps = epochs
            train(cfg, tmp_path / name)
            rates[name] = read_rates(tmp_path / name)
        assert set(rates['long']) > set(rates['short'])
        train(cfg, tmp_path / 'short', resume=True)
        found = read_rates(tmp_path / 'short')
        assert {iteration: found[iteration] for iteration in (5, 6, 7, 8)} == {
            iteration: rates['long'][iteration] for iteration in (5, 6, 7, 8)
        }
        assert found[4] == rates['short'][4] != rates['long'][4]
        groups = [read_groups(tmp_path / name / 'epoch_4.pth') for name in ('short', 'long')]
        assert groups[0] == groups[1]
        assert len({group['lr'] for group in groups[0]}) == (1 if 'eta_max' in scheduler else 2)
        assert 'the schedule is another one than that of the checkpoint' in read_log(tmp_path / 'short')

    def test_another_size_of_a_batch(self, cfg, tmp_path):
        cfg.train_cfg.max_epochs = 2
        train(cfg, tmp_path / 'work')
        cfg.train_cfg.max_epochs = 4
        cfg.train_dataloader.batch_size = 16
        train(cfg, tmp_path / 'work', resume=True)
        train(cfg, tmp_path / 'whole')
        # the third of four epochs, of which each has four steps now, and had two
        found, expected = (read_rates(tmp_path / name) for name in ('work', 'whole'))
        assert [found[4 + step] for step in range(1, 5)] == [expected[8 + step] for step in range(1, 5)]

    def test_the_same_schedule_is_not_mentioned(self, cfg, tmp_path):
        cfg.train_cfg.max_epochs = 2
        train(cfg, tmp_path / 'work')
        (tmp_path / 'work/epoch_2.pth').unlink()
        train(cfg, tmp_path / 'work', resume=True)
        assert 'resumed epoch: 1' in read_log(tmp_path / 'work')
        assert 'the schedule is another one' not in read_log(tmp_path / 'work')


def read_rates(work_dir: Path) -> dict[int, float]:
    """The learning rate of each iteration; the last record counts."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return {record['iter']: record['lr'] for record in records if 'lr' in record}


def read_groups(path: Path) -> list[dict]:
    return torch.load(path, weights_only=False)['optimizer']['param_groups']


MEMORY: dict[str, bytes] = {}


@FileClient.register_backend('memory', prefixes='memory')
@register_backend('memory', prefixes='memory')
class MemoryBackend(BaseStorageBackend):
    get = get_text = MEMORY.__getitem__
    isfile = staticmethod(MEMORY.__contains__)
    remove = staticmethod(MEMORY.__delitem__)

    def put(self, content, path):
        MEMORY[path] = content

    def isdir(self, path):
        return False

    def join_path(self, *parts):
        return '/'.join(parts)


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class TestAnswer:
    def test_no_checkpoint_hook_writes_no_checkpoint(self, cfg, tmp_path):
        train(cfg, tmp_path / 'work')
        cfg.default_hooks.checkpoint = None
        assert train(cfg, tmp_path / 'work') is None

    def test_checkpoints_in_storage_that_is_no_disk(self, cfg, tmp_path):
        cfg.train_cfg.max_epochs = 2
        cfg.default_hooks.checkpoint.update(out_dir='memory://bucket', max_keep_ckpts=1, save_best=None)
        assert train(cfg, tmp_path / 'work') == 'memory://bucket/work/epoch_2.pth'
        assert list(MEMORY) == ['memory://bucket/work/epoch_2.pth']
        assert torch.load(io.BytesIO(MEMORY.popitem()[1]), weights_only=False)['meta']['epoch'] == 2
        assert not list((tmp_path / 'work').glob('*.pth'))
        with pytest.raises(CheckpointError, match=r'memory://bucket/work/epoch_2\.pth, which .* is no file; fetch it'):
            train(cfg, tmp_path / 'work', resume=True)

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

"""Trainings of a very small network on a few digits: where they start, what they refuse, what they answer."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmrepvgg.checkpoints.reading import CheckpointError, read_checkpoint
from mmrepvgg.cli import load_config
from mmrepvgg.data.digits import prepare_digits
from mmrepvgg.engine import training
from mmrepvgg.models.building import build_model

DIGITS = Path(__file__).parent.parent / 'configs' / 'repvgg' / 'repvgg-a0_digits.py'
COUNT = itertools.count()
KERNEL = 'backbone.stage_4.0.branch_3x3.conv.weight'


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('training') / 'digits'
    prepare_digits(root)
    return root


@pytest.fixture
def cfg(data) -> Config:
    """One epoch of two iterations in which the kernels stay as they are."""
    cfg = load_config(str(DIGITS))
    cfg.model.backbone.arch = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4)
    for split, indices in (('train', 64), ('val', 20)):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=32, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(data), indices=indices)
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler.update(T_max=1, end=1)
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
    def test_no_epoch_writes_no_checkpoint(self, cfg, tmp_path):
        train(cfg, tmp_path / 'work')
        cfg.train_cfg.max_epochs = 0
        assert train(cfg, tmp_path / 'work') is None

    def test_a_training_that_is_done_is_that_of_before(self, cfg, tmp_path):
        first = train(cfg, tmp_path / 'work')
        assert train(cfg, tmp_path / 'work', resume=True) == first

import os
import pickle
import struct

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmrepvgg import RepVGG
from mmrepvgg.checkpoints.loading import load_weights
from mmrepvgg.checkpoints.reading import Checkpoint, CheckpointError, read_checkpoint
from mmrepvgg.checkpoints.runner_files import load_from_local
from mmrepvgg.checkpoints.safe_globals import allow_runner_checkpoints
from mmrepvgg.checkpoints.writing import replacing, require_writable
from mmrepvgg.models.forms import CheckpointFormError

WEIGHTS = {'layer.weight': torch.arange(6.0).reshape(2, 3), 'layer.bias': torch.ones(2)}
AVERAGED = {key: value + 1 for key, value in WEIGHTS.items()}


def assert_same(actual, expected):
    torch.testing.assert_close(dict(actual), expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ('content', 'entry'),
    [
        (WEIGHTS, 'the file itself'),
        ({'state_dict': WEIGHTS, 'epoch': 3}, 'state_dict'),
        ({'model': WEIGHTS, 'optimizer': {'lr': 0.1}}, 'model'),
        ({f'module.{key}': value for key, value in WEIGHTS.items()}, 'the file itself'),
        ({'state_dict': {f'module.{key}': value for key, value in WEIGHTS.items()}}, 'state_dict'),
    ],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_containers(tmp_path, content, entry, zipped):
    file = tmp_path / 'weights.pth'
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(file)
    assert checkpoint.entry == entry
    assert_same(checkpoint.state_dict, WEIGHTS)


def test_a_runner_checkpoint_with_its_history_and_numpy_objects(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    file = tmp_path / 'epoch_1.pth'
    meta = dict(epoch=1, dataset_meta=dict(classes=('a', 'b')), mmengine_version='0.10.7', score=np.float64(0.5))
    hub = dict(log_scalars={'loss': buffer}, runtime_info=dict(best=np.int64(3)), resumed_keys={})
    torch.save(dict(meta=meta, state_dict=WEIGHTS, message_hub=hub, optimizer={}, param_schedulers=[]), file)
    checkpoint = read_checkpoint(file)
    assert_same(checkpoint.state_dict, WEIGHTS)
    assert checkpoint.meta == meta
    allow_runner_checkpoints()
    loaded = torch.load(file, weights_only=True)['message_hub']['log_scalars']['loss']
    assert loaded.mean() == 1.5
    assert loaded.statistics('max') == 2.0


SCHEDULERS = {
    'ConstantLR': {},
    'CosineAnnealingLR': dict(T_max=5),
    'CosineRestartLR': dict(periods=[2, 3], restart_weights=[1, 0.5], eta_min=0.0),
    'ExponentialLR': dict(gamma=0.9),
    'LinearLR': {},
    'MultiStepLR': dict(milestones=[2]),
    'OneCycleLR': dict(eta_max=0.1, total_steps=9),
    'OneCycleLR linear': dict(eta_max=0.1, total_steps=9, anneal_strategy='linear', three_phase=True),
    'PolyLR': {},
    'StepLR': dict(step_size=2),
}


@pytest.mark.parametrize('name', SCHEDULERS)
def test_every_schedule_can_be_resumed(tmp_path, name):
    def make():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.05, 0.9)
        return PARAM_SCHEDULERS.build(
            dict(type=name.split()[0], **SCHEDULERS[name]), default_args=dict(optimizer=optimizer)
        )

    scheduler = make()
    for _ in range(3):
        scheduler.optimizer.step()
        scheduler.step()
    torch.save(
        dict(state_dict=WEIGHTS, param_schedulers=[scheduler.state_dict()], optimizer=scheduler.optimizer.state_dict()),
        tmp_path / 'epoch_3.pth',
    )
    assert_same(read_checkpoint(tmp_path / 'epoch_3.pth').state_dict, WEIGHTS)
    allow_runner_checkpoints()
    loaded = torch.load(tmp_path / 'epoch_3.pth', weights_only=True)
    resumed = make()
    resumed.optimizer.load_state_dict(loaded['optimizer'])
    resumed.load_state_dict(loaded['param_schedulers'][0])
    for _ in range(4):
        for each in (scheduler, resumed):
            each.optimizer.step()
            each.step()
        assert resumed.get_last_value() == scheduler.get_last_value()


@pytest.mark.parametrize(
    'content',
    [
        {'state_dict': WEIGHTS, 'ema_state_dict': {'steps': torch.tensor(1), **AVERAGED}},
        {'model': WEIGHTS, 'model_ema': {f'module.{key}': value for key, value in AVERAGED.items()}},
        {'state_dict': WEIGHTS, 'state_dict_ema': AVERAGED},
        {'ema': AVERAGED},
        # mmengine's EMAHook saves the average where the weights are, and the last iterate in its place
        {
            'meta': {'mmengine_version': '0.10.7'},
            'state_dict': AVERAGED,
            'ema_state_dict': {f'module.{key}': value for key, value in WEIGHTS.items()},
        },
    ],
)
def test_averaged_weights(tmp_path, content):
    torch.save(content, tmp_path / 'weights.pth')
    assert_same(read_checkpoint(tmp_path / 'weights.pth', ema=True).state_dict, AVERAGED)


def test_averaged_weights_that_are_not_there(tmp_path):
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'holds no EMA weights: .* got state_dict; read it without `ema`'):
        read_checkpoint(tmp_path / 'weights.pth', ema=True)


class RunsCommand:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f'touch {self.file}',)


class ReachesOut:
    """getattr, to which a Runner checkpoint needs a stand-in, used to reach something else."""

    def __init__(self, owner, name):
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path):
    proof = tmp_path / 'proof'
    RunsCommand(proof).__reduce__()  # the object itself is harmless until it is unpickled
    for name, content in {
        'zip': {'state_dict': WEIGHTS, 'meta': RunsCommand(proof)},
        'object': np.array([RunsCommand(proof)], dtype=object),
    }.items():
        for zipped in (True, False):
            file = tmp_path / f'{name}.pth'
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            with pytest.raises(CheckpointError, match='refused, and nothing in it was run') as error:
                read_checkpoint(file)
            assert '\n' not in str(error.value)
            assert 'weights_only' not in str(error.value)
            assert not proof.exists()
    for owner, name in ((HistoryBuffer, '__init__'), ('text', 'format'), (OneCycleParamScheduler, '__init__')):
        content = dict(state_dict=WEIGHTS, meta=dict(epoch=1, method=ReachesOut(owner, name)))
        torch.save(content, tmp_path / 'getattr.pth')
        assert read_checkpoint(tmp_path / 'getattr.pth').meta == dict(epoch=1)
        with pytest.raises(CheckpointError, match='may refer to the functions min, max, mean'):
            load_from_local(str(tmp_path / 'getattr.pth'))
    plain = tmp_path / 'plain.pth'
    plain.write_bytes(pickle.dumps(RunsCommand(proof)))
    with pytest.raises(CheckpointError, match=r'plain\.pth (was refused|is)'):
        read_checkpoint(plain)
    assert not proof.exists()
    pickle.loads(plain.read_bytes())
    assert proof.exists(), 'the file must be a real attack, or this test shows nothing'


def test_files_that_are_no_checkpoints(tmp_path):
    whole = tmp_path / 'whole.pth'
    torch.save(WEIGHTS, whole)
    cases = {
        'empty.pth': (b'', 'damaged or incomplete'),
        'text.pth': (b'<!DOCTYPE html><html>404</html>', 'is no file written by torch.save'),
        'lfs.pth': (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\n', 'Git LFS pointer.*git lfs pull'),
        'cut.pth': (whole.read_bytes()[: whole.stat().st_size // 2], '(damaged or incomplete|refused|is no file)'),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as error:
            read_checkpoint(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(FileNotFoundError, match=r'missing\.pth does not exist'):
        read_checkpoint(tmp_path / 'missing.pth')
    with pytest.raises(CheckpointError, match='is a folder'):
        read_checkpoint(tmp_path)
    for content, message in (
        ([1], 'must hold a dict of weights, got list'),
        ({'lr': 1}, 'holds no weights: .* got lr'),
    ):
        torch.save(content, whole)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(whole)
    torch.save({'state_dict': {}}, whole)
    with pytest.raises(CheckpointError, match='holds no weights in state_dict'):
        read_checkpoint(whole)


def test_replacing_is_all_or_nothing(tmp_path):
    target = tmp_path / 'new' / 'file.bin'
    with replacing(target) as temporary:
        temporary.write_bytes(b'first')
        assert not target.exists()
    assert target.read_bytes() == b'first'

    def fail_half_way():
        with replacing(target) as temporary:
            temporary.write_bytes(b'sec')
            raise ZeroDivisionError('half-way')

    with pytest.raises(ZeroDivisionError, match='half-way'):
        fail_half_way()
    assert target.read_bytes() == b'first'
    link = tmp_path / 'link.bin'
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_bytes(struct.pack('<I', 7))
    assert link.is_symlink()
    assert target.read_bytes() == struct.pack('<I', 7)
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['file.bin', 'link.bin', 'new']
    with pytest.raises(IsADirectoryError, match='is a folder'), replacing(tmp_path):
        pass


class TestReplacingAFolder:
    MARKER = 'parts/model'

    def write(self, folder, content):
        (folder / 'parts').mkdir(parents=True)
        (folder / self.MARKER).write_text(content)

    def list(self, folder):
        return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob('*') if file.is_file()}

    def test_all_or_nothing(self, tmp_path):
        target = tmp_path / 'new' / 'net.package'
        for content in ('first', 'second'):
            require_writable(target, marker=self.MARKER)
            with replacing(target, self.MARKER) as temporary:
                self.write(temporary, content)
                (temporary / content).write_text('')  # what only this one has must not stay
            assert self.list(tmp_path) == {f'new/net.package/{self.MARKER}': content, f'new/net.package/{content}': ''}

        def fail_half_way():
            with replacing(target, self.MARKER) as temporary:
                self.write(temporary, 'third')
                raise ZeroDivisionError('half-way')

        before = self.list(tmp_path)
        with pytest.raises(ZeroDivisionError, match='half-way'):
            fail_half_way()
        assert self.list(tmp_path) == before
        # nothing was written, so that the new one can't take the place
        with pytest.raises(FileNotFoundError, match=r'net.package'), replacing(target, self.MARKER):
            pass
        assert self.list(tmp_path) == before
        assert [path.name for path in target.parent.iterdir()] == ['net.package']

    def test_a_link_is_followed(self, tmp_path):
        self.write(tmp_path / 'net.package', 'first')
        (tmp_path / 'link.package').symlink_to(tmp_path / 'net.package')
        with replacing(tmp_path / 'link.package', self.MARKER) as temporary:
            self.write(temporary, 'second')
        assert (tmp_path / 'link.package').is_symlink()
        assert self.list(tmp_path / 'net.package') == {self.MARKER: 'second'}

    @pytest.mark.parametrize('name', ['empty', 'photos', 'file', 'link'])
    def test_what_is_no_earlier_result_stays(self, tmp_path, name):
        path = tmp_path / f'{name}.package'
        self.write(tmp_path / 'project', 'precious')
        if name == 'file':
            path.write_text('precious')
        elif name == 'link':  # to a folder that has the marker, but another ending
            path.symlink_to(tmp_path / 'project')
        else:
            path.mkdir()
        if name == 'photos':
            (path / 'parts').mkdir()
            (path / 'parts/cat.jpg').write_text('precious')
        before = self.list(tmp_path)
        message = r'\.package exists and is no \.package folder with parts/model in it; move it away'
        with pytest.raises(FileExistsError, match=message):
            require_writable(path, marker=self.MARKER)
        with pytest.raises(FileExistsError, match=message), replacing(path, self.MARKER) as temporary:
            self.write(temporary, 'new')
        assert self.list(tmp_path) == before
        assert path.exists()


def test_what_can_not_be_written_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / 'file').write_bytes(b'content')
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    (tmp_path / 'astray').symlink_to('/proc/none')
    require_writable(None, tmp_path / 'file', tmp_path / 'link', tmp_path / 'new' / 'deeper' / 'file')
    for name in ('file/below', 'file/below/more', 'astray', '/proc/file'):
        with pytest.raises(PermissionError, match=rf'{name} can not be written: no file can be made in'):
            require_writable(tmp_path / name)
    with pytest.raises(IsADirectoryError, match='is a folder; give the name of a file'):
        require_writable(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['astray', 'file', 'link']


class TestLoading:
    ARCH = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25, 0.25, 0.25, 0.25])

    def checkpoint(self, model, tmp_path, **changes):
        state_dict = {k: v.clone() for k, v in model.state_dict().items()} | changes
        return Checkpoint(tmp_path / 'weights.pth', {k: v for k, v in state_dict.items() if v is not None})

    def test_all_weights_are_loaded(self, tmp_path):
        source, model = RepVGG(self.ARCH), RepVGG(self.ARCH)
        load_weights(model, self.checkpoint(source, tmp_path))
        assert_same(model.state_dict(), dict(source.state_dict()))

    def test_what_does_not_fit_is_named_and_nothing_is_loaded(self, tmp_path):
        model = RepVGG(self.ARCH)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        changes = {
            'stem.branch_3x3.conv.weight': None,
            'head.fc.weight': torch.zeros(1),
            'stage_4.0.branch_3x3.norm.bias': torch.zeros(7),
            'stem.branch_1x1.norm.bias': torch.zeros(16, dtype=torch.int64),
        }
        message = (
            r'weights\.pth does not fit .*1 missing \(stem\.branch_3x3\.conv\.weight, .*1 unexpected \(head\.fc\.weight'
            r'.*1 of another shape \(stage_4\.0\.branch_3x3\.norm\.bias \(7,\) instead of \(128,\)'
            r'.*1 of another type \(stem\.branch_1x1\.norm\.bias torch\.int64 instead of torch\.float32'
        )
        with pytest.raises(CheckpointError, match=message):
            load_weights(model, self.checkpoint(RepVGG(self.ARCH), tmp_path, **changes))
        assert_same(model.state_dict(), before)

    def test_files_of_old_torch_without_counters(self, tmp_path):
        source = RepVGG(self.ARCH)
        counters = {k: None for k in source.state_dict() if k.endswith('num_batches_tracked')}
        load_weights(RepVGG(self.ARCH), self.checkpoint(source, tmp_path, **counters))

    def test_the_other_form(self, tmp_path):
        source = nn.ModuleDict(dict(backbone=RepVGG(self.ARCH, deploy=True)))
        model = nn.ModuleDict(dict(backbone=RepVGG(self.ARCH)))
        with pytest.raises(CheckpointFormError, match=r'weights\.pth: the checkpoint is in deploy form'):
            load_weights(model, self.checkpoint(source, tmp_path))

"""What trainings leave behind that are killed, stopped, started twice, or have no space left."""

import os
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from forked_trainings import TINY, Server, Training, hash_state, strike, wait_until
from mmengine.config import Config

from mmrepvgg.engine.latest import find_latest

# so that a training lasts until it is killed
ENDLESS = ['train_cfg.max_epochs=500', 'default_hooks.logger.interval=100']
KEEP_ONE = 'default_hooks.checkpoint.max_keep_ckpts=1'
# no file may become larger
LIMITED = 'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))'


@pytest.fixture(scope='module')
def server():
    with Server() as server:
        yield server


@pytest.fixture
def folder(digit_images, tmp_path):
    (tmp_path / 'data').symlink_to(digit_images.parent)
    return tmp_path


@pytest.fixture(scope='module')
def once_trained(server, digit_images, tmp_path_factory):
    """A work dir with two epochs of three, of which only the last is kept."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'data').symlink_to(digit_images.parent)
    options = [*strike(8, signal.SIGKILL), KEEP_ONE]
    assert server.run(TINY, '--work-dir', 'work', '--cfg-options', *options, cwd=folder)[0] == -signal.SIGKILL
    return folder / 'work'


@pytest.fixture
def trained(once_trained, folder):
    """A copy of it that a test may change."""
    return shutil.copytree(once_trained, folder / 'work')


def is_alive(process: int) -> bool:
    """Whether it runs: one that has ended, and that nobody has asked for its status, does not."""
    status = Path('/proc', str(process), 'stat')
    return status.exists() and status.read_text().rpartition(')')[2].split()[0] != 'Z'


def list_group(leader: int) -> list[int]:
    """The living processes of a group."""
    stats = (path.read_text() for path in Path('/proc').glob('[0-9]*/stat') if path.exists())
    fields = [(int(text.split()[0]), text.rpartition(')')[2].split()) for text in stats]
    return [process for process, (state, _, group, *_) in fields if int(group) == leader and state != 'Z']


def has_printed(training: Training, text: str) -> bool:
    assert is_alive(training.pid), training.output
    return text in training.output


def check_files(work_dir: Path) -> int:
    """Every file with its final name is whole. Gives the iteration of the latest checkpoint."""
    for path in work_dir.glob('[!.]*'):
        if path.suffix == '.pth':
            content = torch.load(path, weights_only=False)
            assert {'meta', 'state_dict', 'message_hub'} <= content.keys(), path
        elif path.suffix == '.py':
            assert Config.fromfile(path).model, path
    note = work_dir / 'last_checkpoint'
    if note.exists():
        assert Path(note.read_text()).exists()
    found = find_latest(work_dir)
    assert not found.skipped
    return found.checkpoint.meta['iter'] if found.checkpoint else 0


@pytest.mark.parametrize('times', [3, pytest.param(50, marks=pytest.mark.deep)])
def test_killed_at_random_moments(server, folder, times):
    """Each time within half a second from the first of its checkpoints on; most of that time it saves."""
    chance = random.Random(times)
    work_dir = folder / 'work'
    iteration = within_writes = 0
    for _ in range(times):
        training = server.start(TINY, '--work-dir', 'work', '--resume', '--cfg-options', *ENDLESS, cwd=folder)
        wait_until(partial(has_printed, training, 'Saving checkpoint'))
        time.sleep(chance.uniform(0, 0.5))
        os.kill(training.pid, signal.SIGKILL)
        assert training.wait() == -signal.SIGKILL, training.output
        within_writes += any(work_dir.glob('.*.pth'))
        found = check_files(work_dir)
        assert found >= iteration, 'a checkpoint is lost'
        assert iteration == 0 or f'resumed epoch: {iteration // 3}, iter: {iteration}' in training.output
        iteration = found
    assert iteration
    print(f'{within_writes} of {times} kills came within the writing of a checkpoint; {iteration} iterations')
    # as a training that nobody has killed
    whole = [*ENDLESS, *strike(iteration, signal.SIGTERM)]
    assert server.run(TINY, '--work-dir', 'whole', '--cfg-options', *whole, cwd=folder)[0] == 143
    assert hash_state(folder / 'whole/interrupted.pth') == hash_state(work_dir / f'epoch_{iteration // 3}.pth')


# Kills the process when it has written a file, and before that has its name.
KILL_BEFORE_NAME = """
import os, signal
from mmrepvgg.engine import saving
sync = saving._sync
def kill(path):
    sync(path)
    if {!r} in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
saving._sync = kill
"""


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('epoch_3.pth', {'epoch_2.pth', 'best_accuracy_top1_epoch_2.pth'}),
        ('last_checkpoint', {'epoch_2.pth', 'epoch_3.pth', 'best_accuracy_top1_epoch_2.pth'}),
        ('best_accuracy', {'epoch_3.pth', 'best_accuracy_top1_epoch_2.pth'}),
    ],
)
def test_what_was_there_stays_until_the_new_file_has_its_name(server, folder, trained, name, expected):
    # which is above the best of top-1 that the checkpoint knows
    best = ['default_hooks.checkpoint.save_best=accuracy/top5']
    command = [TINY, '--work-dir', 'work', '--resume', '--cfg-options', KEEP_ONE, *best]
    status, output = server.run(*command, cwd=folder, prepare=KILL_BEFORE_NAME.format(name))
    assert status == -signal.SIGKILL, output
    assert {path.name for path in trained.glob('[!.]*.pth')} == expected
    assert check_files(trained) == (6 if name == 'epoch_3.pth' else 9)
    assert any(trained.glob(f'.*{name}*'))
    if name != 'epoch_3.pth':
        return
    # the next training removes what has no name
    assert server.run(*command, cwd=folder)[0] == 0
    assert {path.name for path in trained.glob('.*')} == {'.training.lock'}
    assert {path.name for path in trained.glob('*.pth')} == {'epoch_3.pth', 'best_accuracy_top5_epoch_3.pth'}


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_training(server, folder, number):
    training = server.start(TINY, '--work-dir', 'work', '--cfg-options', *ENDLESS, cwd=folder)
    wait_until(partial(has_printed, training, 'Saving checkpoint at 2'))
    assert len(list_group(training.pid)) == 3, 'the training and two workers'
    os.killpg(training.pid, number)
    assert training.wait() == 128 + number, training.output
    *_, last = training.output.splitlines()
    iteration = check_files(folder / 'work')
    assert last == (
        f'{number.name} has stopped the training after iteration {iteration}: {folder}/work/interrupted.pth has its '
        'state; go on with --resume'
    )
    assert (folder / 'work/last_checkpoint').read_text() == f'{folder}/work/interrupted.pth'
    assert 'Traceback' not in training.output
    assert not list_group(training.pid)


def test_a_signal_that_is_ignored_stays_so(server, folder):
    """Under nohup, or in the background of a script."""
    options = strike(2, signal.SIGHUP)
    ignoring = 'import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)'
    status, output = server.run(TINY, '--work-dir', 'work', '--cfg-options', *options, cwd=folder, prepare=ignoring)
    assert status == 0, output


SLEEPING = """
import time
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
@HOOKS.register_module()
class SleepHook(Hook):
    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 4:
            print('asleep', flush=True)
            time.sleep(600)
"""


def test_a_second_signal_ends_a_training_at_once(server, folder):
    options = ['default_hooks.sleep.type=SleepHook']
    training = server.start(TINY, '--work-dir', 'work', '--cfg-options', *options, cwd=folder, prepare=SLEEPING)
    wait_until(partial(has_printed, training, 'asleep'))
    os.kill(training.pid, signal.SIGTERM)
    wait_until(partial(has_printed, training, 'SIGTERM: the training stops after this iteration'))
    os.kill(training.pid, signal.SIGTERM)  # as from a launcher that sends it on
    time.sleep(1.1)
    assert is_alive(training.pid)
    os.kill(training.pid, signal.SIGTERM)
    assert training.wait() == -signal.SIGTERM
    wait_until(lambda: not list_group(training.pid))
    assert check_files(folder / 'work') == 3


def test_a_second_training_in_a_work_dir_is_refused(server, folder):
    training = server.start(TINY, '--work-dir', 'work', '--cfg-options', *ENDLESS, cwd=folder)
    wait_until(partial(has_printed, training, 'Saving checkpoint'))
    files = {path.name for path in (folder / 'work').iterdir() if path.is_dir()}
    status, output = server.run(TINY, '--work-dir', 'work', cwd=folder)
    assert status == 1
    assert f'error: another training writes into work (process {training.pid} on ' in output
    assert output.strip().endswith('); wait for its end, or give another --work-dir')
    assert {path.name for path in (folder / 'work').iterdir() if path.is_dir()} == files
    assert is_alive(training.pid)
    os.kill(training.pid, signal.SIGKILL)
    training.wait()


def check_refusal(status, output, trained):
    assert status == 1, output
    assert f'error: {trained}/epoch_3.pth can not be written: ' in output
    assert output.strip().endswith('make room, or give another place. What was there before is as it was')
    assert 'Traceback' not in output
    assert check_files(trained) == 6
    assert {path.name for path in trained.glob('.*')} == {'.training.lock'}


def test_a_checkpoint_larger_than_a_file_may_be(server, folder, trained):
    limit = LIMITED.format((trained / 'epoch_2.pth').stat().st_size // 2)
    status, output = server.run(
        TINY, '--work-dir', 'work', '--resume', '--cfg-options', KEEP_ONE, cwd=folder, prepare=limit
    )
    check_refusal(status, output, trained)


def test_a_disk_that_is_full(server, folder, trained):
    disk = folder / 'disk'
    disk.mkdir()
    size = sum(path.stat().st_size for path in trained.rglob('*')) + (trained / 'epoch_2.pth').stat().st_size // 2
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', disk], capture_output=True)
    if mount.returncode:
        pytest.skip('no file system can be mounted here')
    try:
        shutil.copytree(trained, disk / 'work')
        command = [TINY, '--work-dir', disk / 'work', '--resume', '--cfg-options', KEEP_ONE]
        check_refusal(*server.run(*command, cwd=folder), disk / 'work')
        subprocess.run(['mount', '-o', f'remount,size={10 * size}', disk], check=True)
        status, output = server.run(*command, cwd=folder)
        assert status == 0, output
    finally:
        subprocess.run(['umount', disk], check=True)

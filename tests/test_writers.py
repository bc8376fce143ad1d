"""Writers that are killed, and disks that are full: what bears the name of a result is whole, and nothing is left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_writers import WRITERS
from missing_runtimes import WITHOUT_EXECUTORCH
from small_training import write_small_training
from tool_runs import run_python

from mmrepvgg.checkpoints import leftovers
from mmrepvgg.checkpoints.leftovers import name_temporary
from mmrepvgg.checkpoints.writing import NoSpaceError, replacing

TESTS = Path(__file__).parent
KILLS, MANY_KILLS = 3, 50
# Of these the normal run kills a few.
QUICK = ['save', 'reparameterize', 'convert', 'export .ts', 'export .xml']
FULL = {
    'reparameterize': ['reparameterize', 'config.py', 'good.pth', 'out.pth'],
    'convert': ['convert', 'good.pth', 'out.pth'],
    'convert to safetensors': ['convert', 'good.pth', 'out.safetensors'],
    **{
        f'export {suffix}': ['export', 'config.py', 'good.pth', f'out{suffix}']
        for suffix in (
            '.ts',
            '.onnx',
            '.xml',
            '.pt2',
            '.safetensors',
            '.param',
            *(() if WITHOUT_EXECUTORCH else ('.pte',)),
        )
    },
    'quantize': ['quantize', 'config.py', 'good.pth', 'out.xml', '--quantizer', 'onnxruntime', '--num-samples', '2'],
}


def kill(folder, number, *writers):
    done = run_python(TESTS / 'killed_writers.py', folder, number, *writers, timeout=7200)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((folder / 'report.json').read_text())
    print(json.dumps(report, indent=1))
    assert sum(each['kills'] for each in report.values()), 'all were done before the kill'


def test_killed_writers_leave_whole_files(tmp_path):
    kill(tmp_path, KILLS, *QUICK)


@pytest.mark.deep
def test_many_killed_writers_leave_whole_files(tmp_path):
    kill(tmp_path, MANY_KILLS, *WRITERS)


@pytest.mark.parametrize('limit', [1500])
def test_a_full_disk_is_named_and_leaves_what_was_there(limit, tmp_path):
    write_small_training(tmp_path)
    (tmp_path / 'plan.json').write_text(json.dumps(list(FULL.items())))
    done = run_python(TESTS / 'hostile_runs.py', tmp_path, limit)
    assert done.returncode == 0, f'{(tmp_path / "last").read_text()}: {done.stderr[-2000:]}'
    results = json.loads((tmp_path / 'results.json').read_text())
    assert results.keys() == FULL.keys()
    for name, result in results.items():
        assert (result['status'], result['changed'], result['hidden']) == (1, [], []), f'{name}: {result}'
        line = result['stderr'].strip().splitlines()[-1]
        assert 'can not be written: there is no space left for it in' in line, f'{name}: {line}'
        assert line.endswith('make room, or give another place. What was there before is as it was')


def test_errors_of_other_reasons_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match='^other$'), replacing(tmp_path / 'x'):
        raise RuntimeError('other')
    with pytest.raises(NoSpaceError, match='x can not be written: there is no space'), replacing(tmp_path / 'x'):
        raise RuntimeError('the library') from OSError(28, 'No space left on device')


class TestLeftovers:
    @pytest.fixture(autouse=True)
    def forget(self):
        leftovers._clear.cache_clear()

    def find_dead(self):
        process = subprocess.Popen([sys.executable, '-c', ''])
        process.wait()
        return process.pid

    def leave(self, folder, process, machine=None):
        path = name_temporary(folder / 'net.pth')
        name = path.name.replace(f'-{os.getpid()}.', f'-{process}.')
        if machine:
            name = name.replace(path.name.split('-')[1], machine)
        (folder / name).write_text('half')
        return folder / name

    def write(self, folder):
        with replacing(folder / 'other.pth') as temporary:
            temporary.write_text('whole')

    def test_those_of_dead_processes_and_of_an_earlier_one_with_this_number(self, tmp_path):
        dead = [self.leave(tmp_path, self.find_dead()), self.leave(tmp_path, os.getpid())]
        folder = tmp_path / dead[0].name.replace('net.pth', 'net.mlpackage')
        (folder / 'Data').mkdir(parents=True)
        self.write(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ['other.pth']

    def test_those_of_the_living_and_what_is_of_others_stay(self, tmp_path):
        living = self.leave(tmp_path, os.getppid())
        others = [tmp_path / name for name in ('.mmrepvgg-notes', '.hidden', f'.{self.find_dead()}.net.pth')]
        for path in others:
            path.write_text('')
        self.write(tmp_path)
        assert living.exists()
        assert all(path.exists() for path in others)

    def test_those_of_another_machine_when_untouched_for_a_day(self, tmp_path):
        new, old = (self.leave(tmp_path, self.find_dead() + i, '0123abcd') for i in (0, 1))
        os.utime(old, (time.time() - 90_000,) * 2)
        self.write(tmp_path)
        assert new.exists()
        assert not old.exists()

    def test_a_folder_that_was_about_to_be_replaced_comes_back(self, tmp_path):
        dead = self.leave(tmp_path, self.find_dead())
        dead.unlink()
        for name in ('lost', 'there'):
            old = tmp_path / f'{dead.name.replace("net.pth", name)}.old'
            old.mkdir()
            (old / 'part').touch()
        (tmp_path / 'there').mkdir()
        self.write(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ['lost', 'other.pth', 'there']
        assert [path.name for path in (tmp_path / 'lost').iterdir()] == ['part']
        assert not list((tmp_path / 'there').iterdir())

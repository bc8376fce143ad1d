"""Progress in a terminal, silence in a pipe, and the end of a command whose reader ends first."""

import os
import pty
import re
import select
import subprocess
import sys

import pytest
from tool_runs import ROOT, run_python

# Three tasks, one in another; what is printed meanwhile; and what a library prints past Python.
WORK = """
import os, sys, time
from mmrepvgg.progress import counting, starting, track, working
from mmrepvgg.runtimes.quiet import quiet, quiet_stderr

with starting():
    time.sleep(0.15)
with working('writing net.onnx'), quiet(), quiet_stderr():
    print('noise')
    print('noise', file=sys.stderr)
    os.write(2, b'noise')
    time.sleep(0.15)
    for _ in track('ab', 'comparing'):
        time.sleep(0.15)
with working('reading in another process'):
    if (child := os.fork()) == 0:
        print('a child writes to', type(sys.stderr).__name__, file=sys.stderr, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
for letter in track(iter('abcd'), 'reading', 4):
    print(f'found {letter}', flush=True)
    print('warning', file=sys.stderr)
    time.sleep(0.15)
print('result')
"""

# a command that does one thing
COMMAND = """
import os, types
from mmrepvgg.commands.running import run

def work(args):
    {}

run(types.SimpleNamespace(__doc__='', add_arguments=lambda parser: None, run=work), 'it', [])
"""


def run_in_terminal(code: str, *, stdout_too: bool) -> tuple[str, str]:
    """What reaches a terminal of stderr, and what reaches stdout if that is a pipe."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        **dict(stdin=end, stdout=end if stdout_too else subprocess.PIPE, stderr=end),
        env=os.environ | dict(PYTHONPATH=str(ROOT), TERM='xterm', COLUMNS='100', LINES='40'),
    )
    os.close(end)
    shown = b''
    # at the end of the process its side of the terminal is closed, which is an error on this side
    while select.select([terminal], [], [], 30)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
    out, _ = process.communicate()
    os.close(terminal)
    assert process.returncode == 0, shown
    return re.sub(r'\x1b\[[\d;?]*[a-zA-Z]', '', shown.decode()), (out or b'').decode()


class TestProgress:
    @pytest.mark.parametrize('stdout_too', [True, False])
    def test_a_terminal_shows_each_task(self, stdout_too):
        shown, out = run_in_terminal(WORK, stdout_too=stdout_too)
        for words in ('starting', 'writing net.onnx', 'comparing', r'reading \S+ +50%'):
            assert re.search(words, shown), words
        assert 'noise' not in shown
        assert shown.count('warning') == 4
        # not to the display, whose thread a forked process has not
        assert 'a child writes to TextIOWrapper' in shown
        # rich would send what is printed meanwhile to the terminal, too, if stdout is a pipe
        results = [f'found {letter}' for letter in 'abcd'] + ['result']
        assert out.splitlines() == ([] if stdout_too else results)
        assert [shown.count(result) for result in results] == [int(stdout_too)] * 5

    def test_a_pipe_gets_results_alone(self):
        done = run_python('-c', WORK)
        assert done.stderr.splitlines() == ['a child writes to TextIOWrapper', *['warning'] * 4]
        assert done.stdout.splitlines() == ['found a', 'found b', 'found c', 'found d', 'result']

    def test_one_of_several_processes_shows_it(self):
        code = f"import os; os.environ['RANK'] = '1'\n{WORK}"
        assert 'reading' not in run_in_terminal(code, stdout_too=False)[0]


class TestReader:
    """``mmrepvgg COMMAND | head``."""

    def end_early(self, *command: str) -> tuple[int, str]:
        reading, writing = os.pipe()
        os.close(reading)
        # argparse takes no notice of what it can't write, unless that is buffered
        env = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='')
        done = subprocess.run([sys.executable, *command], stdout=writing, stderr=subprocess.PIPE, text=True, env=env)
        os.close(writing)
        return done.returncode, done.stderr

    @pytest.mark.parametrize(
        'command', [['-m', 'mmrepvgg'], ['-m', 'mmrepvgg', 'train', '--help'], ['-c', COMMAND.format("print('it')")]]
    )
    def test_a_command_ends_as_the_tools_of_the_system(self, command):
        assert self.end_early(*command) == (141, '')

    def test_other_broken_pipes_are_errors(self):
        code = COMMAND.format("reading, writing = os.pipe(); os.close(reading); os.write(writing, b'x')")
        done = run_python('-c', code)
        assert (done.returncode, done.stdout) == (1, '')
        assert done.stderr.startswith('it: error: BrokenPipeError: ')

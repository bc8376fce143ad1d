"""The tools and Python itself, run as users run them: as processes. And the command line in this process."""

import io
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.logging import MMLogger

from mmrepvgg.commands.main import main

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs/repvgg'
SMALL, SMALL_DEPLOY = (ROOT / f'tests/configs/digits_small{form}.py' for form in ('', '_deploy'))

# What a command that succeeds may say on stderr in a pipe: its own warnings, the log of a training and where its report
# is, notes, and lists of images. All else is noise of the libraries under it.
_OWN_WORDS = re.compile(
    r'((mmrepvgg )?[\w.-]+: )?warning: |\d\d/\d\d \d\d:\d\d:\d\d - mmengine - |report: |note: |  \S'
)

# Runs a script in a Python in which some packages seem not to be installed.
_WITHOUT = """
import runpy, sys
packages, *sys.argv = sys.argv[1:]
sys.modules.update(dict.fromkeys(packages.split()))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run_tool(
    name: str, *args: object, cwd: Path, without: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess:
    """Run ``tools/<name>.py`` in a folder; importing one of the packages ``without`` is an error."""
    _, *given = _leave_out_report(name, *args)
    command = [ROOT / f'tools/{name}.py', *given]
    return run_python(*(['-c', _WITHOUT, ' '.join(without)] if without else []), *command, cwd=cwd, **env)


def run_python(*args: object, cwd: Path = ROOT, timeout: int = 600, **env: str) -> subprocess.CompletedProcess:
    """Run Python, with the package of this tree."""
    command = [sys.executable, *map(str, args)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), **env}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


def run_command(*args: object, cwd: Path, reports: bool = False) -> subprocess.CompletedProcess:
    """Run ``mmrepvgg <args>`` in this process. One of its own would import torch and mmpretrain for seconds.

    A training writes a page about itself, which takes seconds, with ``reports`` only.
    """
    given = args if reports else _leave_out_report(*args)
    status, stdout, stderr, folder = None, io.StringIO(), io.StringIO(), Path.cwd()
    # what a command sets for its process is put back: variables, filters and the words of warnings
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(warnings, 'formatwarning', warnings.formatwarning),
        warnings.catch_warnings(),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        _warn_as_a_process()
        _log_to(stderr)
        os.chdir(cwd)
        try:
            main([*map(str, given)])
        except SystemExit as end:
            status = end.code
        finally:
            os.chdir(folder)
    return subprocess.CompletedProcess(args, status, stdout.getvalue(), stderr.getvalue())


def _warn_as_a_process() -> None:
    """Print warnings to stderr, as Python does; pytest would take them."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    warnings.showwarning = show
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter('ignore', category)
    # a command that does not write LiteRT files has not loaded JAX, which other tests of this process have
    warnings.filterwarnings('ignore', r'os\.fork\(\) was called', RuntimeWarning)
    # mmengine names a run by the second; two runs in one second are of one process only here
    warnings.filterwarnings('ignore', r'.* has been created, the method `get_instance` should not accept', UserWarning)


def _log_to(stderr: io.StringIO) -> None:
    """Lead the loggers that other tests have made to this stderr: theirs may be closed."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.stream = stderr  # setStream would flush the old one


def succeed(name: str, *args: object, cwd: Path, **env: str) -> str:
    """What a tool prints that must succeed."""
    return _check_success(run_tool(name, *args, cwd=cwd, **env))


def succeed_here(name: str, *args: object, cwd: Path) -> str:
    """What a command prints that must succeed, run in this process."""
    return _check_success(run_command(name, *args, cwd=cwd))


def train(*args: object, cwd: Path) -> str:
    """The log on the console of a training that must succeed, by the tool."""
    done = run_tool('train', *args, cwd=cwd)
    assert _check_success(done).startswith('trained: ')
    return done.stderr


def fail(name: str, *args: object, cwd: Path, **env: str) -> str:
    """The one line of a tool's error, after the checks that hold for every error."""
    return _check_failure(run_tool(name, *args, cwd=cwd, **env), f'{name}.py')


def fail_here(name: str, *args: object, cwd: Path) -> str:
    """The one line of a command's error, run in this process."""
    return _check_failure(run_command(name, *args, cwd=cwd), f'mmrepvgg {name}')


def _leave_out_report(*args: object) -> list[object]:
    return [*args, *(['--no-report'] if args[:1] == ('train',) else [])]


def _check_success(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # the forks of the stack have their own noise, and other versions below them
    assert find_spec('mmdet') or not [line for line in done.stderr.splitlines() if not _OWN_WORDS.match(line)]
    return done.stdout


def _check_failure(done: subprocess.CompletedProcess, prog: str) -> str:
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert 'Traceback' not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f'{prog}: error: ')
    return line

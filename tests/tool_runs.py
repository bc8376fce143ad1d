"""The tools and Python itself, run as users run them: as processes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs/repvgg'
SMALL, SMALL_DEPLOY = (ROOT / f'tests/configs/digits_small{form}.py' for form in ('', '_deploy'))


def run_tool(
    name: str, *args: object, cwd: Path, python: Sequence[str] = (), **env: str
) -> subprocess.CompletedProcess:
    """Run ``tools/<name>.py`` in a folder; ``python`` are options of the interpreter."""
    return run_python(*python, ROOT / f'tools/{name}.py', *args, cwd=cwd, **env)


def run_python(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, args)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **env}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    # the onedl forks of the stack say this on stdout when they are imported
    done.stdout = done.stdout.removeprefix('Could not import OneDL\n')
    return done


def succeed(name: str, *args: object, cwd: Path, **env: str) -> str:
    """What a tool prints that must succeed."""
    done = run_tool(name, *args, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def fail(name: str, *args: object, cwd: Path, **env: str) -> str:
    """The one line of an error, after the checks that hold for every error."""
    done = run_tool(name, *args, cwd=cwd, **env)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    assert 'Traceback' not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f'{name}.py: error: ')
    return line

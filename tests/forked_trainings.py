"""Trainings by the command line, each in a process of its own that can be killed, without slow imports of its own.

A server has imported all that a training needs, and forks for each of them. It reads a line of JSON for each order on
stdin, and answers on stdout.
"""

import contextlib
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
TINY = ROOT / 'tests/configs/digits_tiny.py'


class Training:
    """A running ``mmrepvgg train``. It leads a process group, in which its workers are."""

    def __init__(self, server: 'Server', pid: int, output: Path):
        self._server, self.pid, self._output = server, pid, output

    @property
    def output(self) -> str:
        """What it has printed up to now, on both streams."""
        return self._output.read_text()

    def wait(self) -> int:
        """Its exit status when it has ended; negative if a signal has ended it."""
        return self._server.wait(self.pid)


class Server:
    """A context in which trainings can be started."""

    def __enter__(self) -> 'Server':
        self._running: set[int] = set()
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error: Any) -> None:
        for pid in self._running:  # of tests that failed
            os.killpg(pid, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait()

    def start(self, *arguments: object, cwd: Path, prepare: str = '') -> Training:
        """Start ``mmrepvgg train ARGUMENTS``, after the statements ``prepare``, in a folder."""
        output = cwd / f'output_{len(list(cwd.glob("output_*")))}'
        output.touch()
        order = dict(arguments=[str(argument) for argument in arguments], cwd=str(cwd), output=str(output))
        training = Training(self, self.ask(**order, prepare=prepare), output)
        self._running.add(training.pid)
        return training

    def wait(self, pid: int) -> int:
        status = self.ask(wait=pid)
        self._running.discard(pid)
        return status

    def run(self, *arguments: object, cwd: Path, prepare: str = '') -> tuple[int, str]:
        """Run it to its end; gives its exit status and what it printed."""
        training = self.start(*arguments, cwd=cwd, prepare=prepare)
        return training.wait(), training.output

    def ask(self, **order: Any) -> Any:
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def strike(iteration: int, number: int, group: bool = False) -> list[str]:
    """Options with which a training gets a signal in an iteration, alone or with its workers."""
    settings = dict(type='StrikeHook', iteration=iteration, number=number, group=group)
    return [f'default_hooks.strike.{name}={value}' for name, value in settings.items()]


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it does not come'
        time.sleep(0.01)


def hash_state(path: Path) -> str:
    """The SHA-256 of all weights, of their averages, and of the optimizer's state and settings in a checkpoint."""
    content = torch.load(path, weights_only=False)
    digest = hashlib.sha256()
    for part in _iterate(
        [content['state_dict'], content['optimizer'], content.get('ema_state_dict', {}), content['meta']['iter']]
    ):
        digest.update(part)
    return digest.hexdigest()


def _iterate(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield value.contiguous().numpy().tobytes()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield str(key).encode()
            yield from _iterate(value[key])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _iterate(each)
    else:
        yield repr(value).encode()


def serve() -> None:
    # the onedl forks of the stack print when they are imported, and stdout is for answers
    with contextlib.redirect_stdout(sys.stderr):
        import matplotlib.figure  # noqa: F401 (a training's log imports it)
        from mmengine.hooks import Hook
        from mmengine.registry import HOOKS

        import mmrepvgg.engine.training
        import mmrepvgg.registry  # noqa: F401

    gc.freeze()  # collections in the forks do not look through what was imported

    @HOOKS.register_module()
    class StrikeHook(Hook):
        def __init__(self, iteration: int, number: int, group: bool):
            self.iteration, self.number, self.group = iteration, number, group

        def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
            if runner.iter + 1 == self.iteration:
                (os.killpg if self.group else os.kill)(os.getpid(), self.number)

    for line in sys.stdin:
        order = json.loads(line)
        if 'wait' in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order['wait'], 0)[1])
        else:
            answer = os.fork() or train(order)
        print(json.dumps(answer), flush=True)


def train(order: dict[str, Any]) -> None:
    from mmrepvgg.commands.main import main

    os.setsid()
    os.chdir(order['cwd'])
    # shells let jobs in the background ignore the one, and nohup the other
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    descriptor = os.open(order['output'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    exec(order['prepare'], {})
    main(['train', *order['arguments'], '--no-report'])


if __name__ == '__main__':
    serve()

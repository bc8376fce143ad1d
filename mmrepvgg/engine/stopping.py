"""The orderly end of a training that a signal stops."""

import atexit
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.dist import barrier, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import distributed
from torch.utils.data import DataLoader

from .saving import INTERRUPTED, save_latest

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Programs that start processes send a signal on that these got already. So a second one is one that comes later.
_SECONDS_TO_SECOND = 1.0


class TrainingStopped(KeyboardInterrupt):
    """A signal has ended a training in an orderly way.

    Attributes:
        status: The exit status of a process that ends because of it: 128 and the number of the signal.
        checkpoint: The checkpoint of the last iteration, or None if the config asks for none.
    """

    def __init__(self, number: int, iteration: int, checkpoint: str | None):
        self.status = 128 + number
        self.checkpoint = checkpoint
        kept = f'{checkpoint} has its state; go on with `resume`' if checkpoint else 'no checkpoint was written'
        super().__init__(f'{_name(number)} has stopped the training after iteration {iteration}: {kept}')


class StopHook(Hook):
    """Ends a training after the iteration in which a signal came, with a checkpoint of that iteration."""

    # after all that belongs to an iteration
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.received: int | None = None
        self._agreement: _Agreement | None = None

    def before_train(self, runner: Runner) -> None:
        if get_world_size() > 1:
            self._agreement = _Agreement()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        number = self.received or 0
        if self._agreement is not None:
            number = self._agreement.exchange(number)
        iteration = runner.iter + 1
        # no checkpoint holds gradients that are accumulated for a later step
        if not number or iteration % getattr(runner.optim_wrapper, '_accumulative_counts', 1):
            return
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if hook is not None:
            save_latest(runner, hook, INTERRUPTED, dict(epoch=runner.epoch, iter=iteration))
        runner.visualizer.close()
        # a process that ends lets the launcher end the others, of which one is writing
        barrier()
        raise TrainingStopped(number, iteration, hook and hook.last_ckpt)


class _Agreement:
    """Lets all processes of a training know a signal that one of them got, in the same iteration.

    The processes hear in each iteration what was sent in the one before, so none has to wait.
    """

    def __init__(self) -> None:
        self._group = distributed.new_group(backend='gloo')
        self._sent: tuple[torch.Tensor, Any] | None = None

    def exchange(self, number: int) -> int:
        heard = 0
        if self._sent is not None:
            numbers, work = self._sent
            work.wait()
            heard = int(numbers)
        mine = torch.tensor(number)
        self._sent = mine, distributed.all_reduce(mine, distributed.ReduceOp.MAX, self._group, async_op=True)
        return heard


@contextmanager
def stopping_at_signals(hook: StopHook) -> Iterator[None]:
    """Let a signal stop the training of ``hook`` after its iteration, and a second one at once.

    Signals are only handled in the main thread of a program. In another one everything stays as it is. A signal that
    the process ignores, as under ``nohup``, is ignored here, too.
    """
    first = 0.0

    def receive(number: int, frame: Any) -> None:
        nonlocal first
        if hook.received is None:
            hook.received, first = number, time.monotonic()
            # a handler can come in the middle of a write, where streams and logs refuse another
            os.write(2, f'{_name(number)}: the training stops after this iteration; again, and it ends now\n'.encode())
        elif time.monotonic() - first > _SECONDS_TO_SECOND:
            _kill_workers()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread
        pass
    # Workers ignore the signal by which multiprocessing asks for their end. It would wait for ever.
    atexit.unregister(_kill_workers)
    atexit.register(_kill_workers)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def keep_workers(loader: DataLoader) -> DataLoader:
    """Let the processes that read images live on when a signal comes to all processes of a job."""
    loader.worker_init_fn = partial(_begin_worker, loader.worker_init_fn)
    return loader


def _begin_worker(begin: Callable[[int], Any] | None, worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if begin is not None:
        begin(worker)


def _kill_workers() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler takes it for an accident
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _name(number: int) -> str:
    return signal.Signals(number).name

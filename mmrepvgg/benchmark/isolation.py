"""A case in a process of its own, since it may end its process."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from .cases import OWN_TRAIN_FORMS, Case
from .networks import build_network, build_reference, make_inputs
from .runner import Runner
from .runners import prepare


def may_crash(case: Case) -> bool:
    """Whether this case corrupts the heap on some CPUs.

    oneDNN does that in the weight gradient of a strided 1x1 convolution in channels_last, with AVX-512. All networks
    but this project's have such convolutions. PyTorch ends then, at once or many steps later.
    """
    return (
        case.runtime == 'train-step'
        and (case.device, case.layout) == ('cpu', 'channels_last')
        and case.network not in OWN_TRAIN_FORMS
    )


def prepare_isolated(case: Case, input_size: int) -> Runner:
    """Prepare a case in another process, which ends with the last use of the result.

    The functions of the result raise a ``RuntimeError`` when that process has ended. The message names the signal.
    """
    ours, theirs = multiprocessing.get_context('spawn').Pipe()
    child = multiprocessing.get_context('spawn').Process(target=_serve, args=(theirs, case, input_size), daemon=True)
    child.start()
    theirs.close()

    def call(name: str) -> Any:
        try:
            ours.send(name)
            error, value = ours.recv()
        except (EOFError, OSError):
            child.join()
            reason = signal.Signals(-child.exitcode).name if child.exitcode and child.exitcode < 0 else 'an error'
            raise RuntimeError(
                f'the training step of {case.network} in channels_last ended its process by {reason} on this CPU; take '
                'its row in nchw'
            ) from None
        if error:
            raise RuntimeError(error)
        return value

    def bind(name: str) -> Callable[[], Any]:
        return lambda: call(name)

    return Runner(bind('run'), lambda: torch.from_numpy(call('logits')), measure_memory=bind('measure_memory'))


def _serve(connection: Connection, case: Case, input_size: int) -> None:
    """Call the functions of a runner by their names, until the other side is gone."""
    torch.set_num_threads(case.threads)
    network = build_network(case.network, case.arch, build_reference(case.model))
    runner = prepare(case, network, make_inputs(case.batch_size, input_size))
    functions: dict[str, Callable[[], Any]] = dict(
        run=runner.run, logits=lambda: runner.logits().numpy(), measure_memory=runner.measure_memory or runner.run
    )
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, functions[name]()))
        except Exception as error:
            connection.send((f'{type(error).__name__}: {error}', None))

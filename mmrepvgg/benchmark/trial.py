"""A trial of a case in a process of its own, since it may end its process."""

import multiprocessing
import signal

import torch

from .cases import OWN_TRAIN_FORMS, RUNTIMES, Case
from .networks import build_network, build_reference, make_inputs
from .runners import prepare

# A corrupted heap is found at one of the next allocations. It was in the first two steps.
_STEPS = 5


def may_crash(case: Case) -> bool:
    """Whether this case corrupts the heap on some CPUs.

    oneDNN does that in the weight gradient of a strided 1x1 convolution in channels_last, with AVX-512. All networks
    but this project's have such convolutions.
    """
    return (
        RUNTIMES[case.runtime].trains
        and (case.device, case.layout) == ('cpu', 'channels_last')
        and case.network not in OWN_TRAIN_FORMS
    )


def try_in_child(case: Case, input_size: int) -> None:
    """Run a few training steps in another process.

    Raises:
        RuntimeError: If that process was ended by a signal. The message names it.
    """
    child = multiprocessing.get_context('spawn').Process(target=_run, args=(case, input_size))
    child.start()
    child.join()
    # other errors come again, with their reason, when the case is prepared
    if child.exitcode is not None and child.exitcode < 0:
        raise RuntimeError(
            f'the training step of {case.network} in channels_last ends its process by '
            f'{signal.Signals(-child.exitcode).name} on this CPU; take its row in nchw'
        )


def _run(case: Case, input_size: int) -> None:
    torch.set_num_threads(case.threads)
    network = build_network(case.network, case.arch, build_reference(case.model))
    runner = prepare(case, network, make_inputs(case.batch_size, input_size))
    for _ in range(_STEPS):
        runner.run()

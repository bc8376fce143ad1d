"""A run of the benchmark: cases are prepared, checked and timed in turns."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn

from .. import mmcv_installed  # noqa: F401

# isort: split

from ..measures.difference import Difference
from ..measures.timing import time_interleaved
from ..models.complexity import count_macs
from ..progress import counting, track
from ..runtimes.network import DTYPES
from .cases import RUNTIMES, Case
from .gemm import prepare_gemms
from .int8_stacks import prepare_int8_stacks
from .isolation import may_crash, prepare_isolated
from .machine import describe_machine, describe_versions
from .networks import build_network, build_reference, make_inputs
from .product import Product
from .results import Limit, Report, Row
from .runner import Runner
from .runners import prepare, require_device

# Largest allowed difference from the logits of the reference, as a part of the largest logit. Random networks amplify
# rounding: to 0.2 in a ResNet-50 in bf16 at 64 pixels, to 0.05 in RepVGGs. With other weights the difference is over 1.
TOLERANCES = {'fp32': 1e-3, 'fp16': 1e-1, 'bf16': 5e-1, 'int8': 5e-1}

# Seconds between two turns, after which threads that spin after their work sleep.
_PAUSE = 0.02

# Seconds of a turn. At batch 1 a row takes milliseconds, and its first call waits for the weights: what ran before has
# taken the caches. Who runs a network has them there from the second image on.
_TURN = 0.1

# Number of images of a batch that are compared. In eval mode an image does not depend on the others.
_NUM_CHECKED = 2


def run_benchmark(
    cases: Sequence[Case], input_size: int = 224, repeats: int = 10, warm_up: int = 2, budget: float = 60
) -> Report:
    """Time cases side by side. A case that fails has an error in the report, and the others are timed.

    Cases with the same number of threads and batch size take turns, together with matrix products of each precision.
    The output of every case is compared with that of the reference before it is timed.

    Args:
        cases: Cases to time (:func:`mmrepvgg.benchmark.cases.plan_cases` makes them).
        input_size: Height and width of the images in pixels.
        repeats: Number of timed rounds.
        warm_up: Number of rounds before them.
        budget: Seconds for each case. A case that used them up is not timed again.
    """
    machine = describe_machine()
    threads = torch.get_num_threads()
    tf32 = torch.backends.cudnn.allow_tf32
    references = _References(input_size)
    rows: dict[Case, Row] = {}
    limits: list[Limit] = []
    # with TF32 a GPU computes the convolutions of fp32 rows in less than fp32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for (num_threads, batch_size), group in groupby(cases, lambda case: (case.threads, case.batch_size)):
            torch.set_num_threads(num_threads)
            title = f'{num_threads} threads, batch {batch_size}: '
            found, beside = _time_group(list(group), references, repeats, warm_up, budget, title)
            rows.update(found)
            limits += beside
            # compiled code is for one number of threads
            torch.compiler.reset()
            gc.collect()
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = tf32
    settings = dict(input_size=input_size, repeats=repeats, warm_up=warm_up, budget=budget)
    machine['load_average_at_the_end'] = describe_machine()['load_average']
    return Report(tuple(rows[case] for case in cases), tuple(limits), settings, machine, describe_versions())


class _References:
    """The reference network of each model and its logits, built when first needed."""

    def __init__(self, input_size: int):
        self.input_size = input_size
        self._networks: dict[str, nn.Module] = {}
        self._logits: dict[str, Tensor] = {}

    def get(self, model: str) -> nn.Module:
        if model not in self._networks:
            self._networks[model] = build_reference(model)
        return self._networks[model]

    def compare(self, model: str, logits: Tensor, inputs: Tensor) -> Difference:
        """Compare ``logits`` with those of the reference on the first images of ``inputs``."""
        if model not in self._logits:
            with torch.inference_mode():
                self._logits[model] = self.get(model)(inputs[:_NUM_CHECKED])
        # a batch may be smaller than that of the reference
        expected = self._logits[model][: len(logits)]
        difference = Difference()
        difference.add(expected, logits[: len(expected)])
        return difference


def _time_group(
    cases: list[Case],
    references: _References,
    repeats: int,
    warm_up: int,
    budget: float,
    title: str,
) -> tuple[dict[Case, Row], list[Limit]]:
    """Time cases with the same number of threads and batch size."""
    rows: dict[Case, Row] = {}
    runners: list[tuple[Case, Runner]] = []
    for case in track(cases, f'{title}preparing'):
        try:
            rows[case], runner = _prepare_case(case, references)
            runners.append((case, runner))
        except Exception as error:
            rows[case] = Row(case, error=_describe(error))
    products = _prepare_products([case for case, _ in runners])

    runs = [*(product.run for product in products), *(runner.run for _, runner in runners)]

    def on_error(index: int, error: Exception) -> None:
        if index >= len(products):  # a product that fails is left out
            case = runners[index - len(products)][0]
            rows[case] = replace(rows[case], error=_describe(error))

    with counting(f'{title}timing', (warm_up + repeats) * len(runs)) as count:
        times = time_interleaved(runs, repeats, warm_up, budget, _PAUSE, _TURN, count, on_error)
    for (case, _), seconds in zip(runners, times[len(products) :], strict=True):
        rows[case] = replace(rows[case], seconds=tuple(seconds))
    first = cases[0]
    limits = [
        Limit(
            product.device,
            product.precision,
            first.threads,
            first.batch_size,
            product.title,
            product.macs,
            tuple(seconds),
        )
        for product, seconds in zip(products, times, strict=False)
    ]
    return rows, limits


def _prepare_products(cases: list[Case]) -> list[Product]:
    """Prepare what is timed beside cases with the same number of threads."""
    products: list[Product] = []
    for device, precision in dict.fromkeys((case.device, case.precision) for case in cases):
        if precision in DTYPES:
            products += prepare_gemms(device, precision)
    for runtime, threads in dict.fromkeys((case.runtime, case.threads) for case in cases if case.precision == 'int8'):
        products += prepare_int8_stacks(runtime, threads)
    return products


def _prepare_case(case: Case, references: _References) -> tuple[Row, Runner]:
    require_device(case.device)
    inputs = make_inputs(case.batch_size, references.input_size)
    network = build_network(case.network, case.arch, references.get(case.model))
    with torch.inference_mode():
        macs = count_macs(network, inputs[:1])
    isolated = may_crash(case)
    runner = prepare_isolated(case, references.input_size) if isolated else prepare(case, network, inputs)
    difference = references.compare(case.model, runner.logits(), inputs)
    tolerance = TOLERANCES[case.precision]
    if difference.exceeds(tolerance):
        raise ValueError(
            f"wrong output: logits may differ from the fp32 train form's by {tolerance:g} of the largest, "
            f'got {difference.relative:.2g}'
        )
    # the backward pass needs twice as many, for the gradients of inputs and of weights
    macs *= 3 if RUNTIMES[case.runtime].trains else 1
    memory = runner.measure_memory() if runner.measure_memory else None
    return Row(case, macs, difference=difference.relative, file_size=runner.file_size, memory=memory), runner


def _describe(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), '')
    return f'{type(error).__name__}: {line[:200]}'

"""Interleaved timing: other work on the machine slows all runs alike. Imports no torch."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Spread:
    """Lower quartile, median and upper quartile of some numbers."""

    low: float
    median: float
    high: float

    def to_rate(self, amount: float) -> 'Spread':
        """How much is done in a second, if ``amount`` takes these seconds."""
        return Spread(amount / self.high, amount / self.median, amount / self.low)


def summarise(times: Sequence[float | None]) -> Spread:
    """The quartiles of ``times``, interpolated between neighbours. None is not counted.

    Raises:
        ValueError: If there is no number.
    """
    numbers = [taken for taken in times if taken is not None]
    if not numbers:
        raise ValueError('times must hold at least one number, got none')
    if len(numbers) == 1:
        return Spread(numbers[0], numbers[0], numbers[0])
    low, _, high = quantiles(numbers, n=4, method='inclusive')
    return Spread(low, median(numbers), high)


def time_interleaved(
    runs: Sequence[Callable[[], object]],
    repeats: int,
    warm_up: int = 0,
    budget: float = float('inf'),
    pause: float = 0,
    turn: float = 0,
    on_turn: Callable[[], object] = lambda: None,
    on_error: Callable[[int, Exception], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> list[list[float | None]]:
    """Time each of ``runs`` in one turn a round, one after the other, for ``repeats`` rounds.

    A run leaves traces for the next one (caches, threads that still spin). So each pair of rounds has another order,
    shuffled by a fixed seed: the first of the two goes through it forwards, the second one backwards.

    Args:
        runs: Functions to time. They must return only when their work is done, also that on a GPU.
        repeats: Number of timed rounds.
        warm_up: Number of rounds before them, whose times are not kept.
        budget: Seconds for each of ``runs``, warm-up included. A run that has used them up is not called again. It is
            timed once in any case.
        pause: Seconds of rest before each run. The threads of some runtimes go on looking for work for a while, which
            slows the next run.
        turn: Least number of seconds of a turn. A quick run is repeated so long, and the mean is its time. The first
            call after a pause and other runs is slower, since its data are no longer in the caches.
        on_turn: Function that is called after each turn of a run, even if the run itself was not called.
        on_error: Function that is called with the index of a run and the error that it raised. The run is not called
            again. If ``on_error`` is None, the error is raised.
        clock: Function that returns seconds.
        sleep: Function that waits for a number of seconds.

    Returns:
        list[list[float | None]]: Seconds of each round for each of ``runs``. None where a run was not timed.
    """
    times: list[list[float | None]] = [[None] * repeats for _ in runs]
    used = [0.0] * len(runs)
    failed: set[int] = set()
    for repeat in range(-warm_up, repeats):
        order = list(range(len(runs)))
        random.Random(repeat // 2).shuffle(order)
        for index in reversed(order) if repeat % 2 else order:
            # the first timed round includes every run
            if index not in failed and (repeat == 0 or used[index] < budget):
                sleep(pause)
                try:
                    taken, calls = _call_repeatedly(runs[index], turn, clock)
                except Exception as error:
                    if on_error is None:
                        raise
                    failed.add(index)
                    on_error(index, error)
                else:
                    used[index] += taken
                    if repeat >= 0:
                        times[index][repeat] = taken / calls
            on_turn()
    return times


def _call_repeatedly(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> tuple[float, int]:
    """Call a function until some seconds have passed, at least once. Gives the seconds and the number of calls."""
    start = clock()
    calls = 0
    while not calls or clock() - start < seconds:
        run()
        calls += 1
    return clock() - start, calls

"""Interleaved timing: all runs see the same machine, whatever else it does meanwhile. Imports no torch."""

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


def summarise(times: Sequence[float | None]) -> Spread:
    """The quartiles of ``times``, interpolated between neighbours; None is no time.

    Raises:
        ValueError: If there is none.
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
    on_turn: Callable[[], object] = lambda: None,
    on_error: Callable[[int, Exception], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> list[list[float | None]]:
    """Time each of ``runs`` once a round, one after the other, for ``repeats`` rounds.

    Each pair of rounds has an order of its own, shuffled by a fixed seed, there and back: what runs before leaves its
    traces (caches, threads that still spin), and none always follows the same other one. A run must end only when its
    work is done (a GPU's too). A run that was timed at least once and whose rounds, warm-up included, took ``budget``
    together is left alone from then on.

    Args:
        runs: What to time.
        repeats: Number of timed rounds.
        warm_up: Number of rounds before them that are not kept.
        budget: Seconds for each of ``runs``. A run that used it up in the warm-up is timed once all the same.
        pause: Seconds of rest before each turn. The threads of some runtimes go on looking for work for a while after
            theirs is done, at the cost of whoever is next.
        on_turn: Called after each turn of a run, those that are left out included.
        on_error: Called with the index of a run and what it raised; the run is left alone from then on. If it is
            None, the error is raised.
        clock: Gives seconds.
        sleep: Waits for seconds.

    Returns:
        list[list[float | None]]: For each of ``runs`` the seconds of each round; None where it was not timed.
    """
    times: list[list[float | None]] = [[None] * repeats for _ in runs]
    used = [0.0] * len(runs)
    failed: set[int] = set()
    for repeat in range(-warm_up, repeats):
        order = list(range(len(runs)))
        random.Random(repeat // 2).shuffle(order)
        for index in reversed(order) if repeat % 2 else order:
            # the first timed round is owed to all
            if index not in failed and (repeat == 0 or used[index] < budget):
                sleep(pause)
                try:
                    start = clock()
                    runs[index]()
                    taken = clock() - start
                except Exception as error:
                    if on_error is None:
                        raise
                    failed.add(index)
                    on_error(index, error)
                else:
                    used[index] += taken
                    if repeat >= 0:
                        times[index][repeat] = taken
            on_turn()
    return times

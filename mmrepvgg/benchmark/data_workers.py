"""Images a second that a data loader gives, by number of workers."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmengine.dataset import InfiniteSampler, pseudo_collate, worker_init_fn
from torch.utils.data import DataLoader

_PREFETCHED = 2  # batches that each worker makes ahead: PyTorch's default


@dataclass(frozen=True)
class Loading:
    """Images a second with a number of workers."""

    num_workers: int
    speed: float


def list_numbers(cores: int | None = None) -> list[int]:
    """0, 1, 2, 4, ... and the number of cores."""
    cores = cores or os.cpu_count() or 1
    return sorted({0, cores, *(2**power for power in range(cores.bit_length()) if 2**power <= cores)})


def time_workers(dataset: Any, batch_size: int, numbers: Sequence[int], seconds: float) -> list[Loading]:
    """Time a data loader with each number of workers, one after the other.

    Args:
        dataset: Built data set. Its images are drawn at random, again and again.
        batch_size: Images in a batch.
        numbers: Numbers of workers. 0 reads in the process itself.
        seconds: Time for each number, after the workers have started and filled their queues.
    """
    return [Loading(number, _time_loader(dataset, batch_size, number, seconds)) for number in numbers]


def _time_loader(dataset: Any, batch_size: int, num_workers: int, seconds: float) -> float:
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=InfiniteSampler(dataset, seed=0),
        num_workers=num_workers,
        collate_fn=pseudo_collate,
        worker_init_fn=partial(worker_init_fn, num_workers=num_workers, rank=0, seed=0),
    )
    batches = iter(loader)
    # what was made while the workers started would count for nothing
    for _ in range(1 + _PREFETCHED * num_workers):
        next(batches)
    start, num_images = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        num_images += len(next(batches)['inputs'])
    return num_images / taken

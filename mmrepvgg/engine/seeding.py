"""Random numbers that follow from the seed, the iteration and the process alone.

So a training that is resumed draws what the uninterrupted one draws, with any number of workers that read its images,
and no state of a generator has to be kept. mmengine seeds once, at the start.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

# What a random number is for. Numbers of different purposes are independent.
_EPOCH, _STEP, _IMAGES = range(3)


class SeedHook(Hook):
    """Seeds the main process before each epoch, for what shuffles the images, and before each step."""

    # before the hooks that draw
    priority = 'HIGHEST'

    def before_train_epoch(self, runner: Runner) -> None:
        _seed(torch.manual_seed, runner.seed, _EPOCH, runner.epoch)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        _seed(torch.manual_seed, runner.seed, _STEP, runner.iter)


class SeededBatches:
    """A batch sampler whose batches know with what their images are to be augmented.

    Attributes:
        iteration: Number of the next batch, counted from the start of the training.
        skip: How many batches of the next epoch are left out. No image of them is read.
    """

    def __init__(self, batches: Iterable[list[int]], seed: int):
        self._batches = batches
        self._seed = seed
        self.iteration = 0
        self.skip = 0

    def __iter__(self) -> Iterator['_Batch']:
        skip, self.skip = self.skip, 0
        for index, batch in enumerate(self._batches):
            if index >= skip:
                yield _Batch(batch, (self._seed, _IMAGES, self.iteration, get_rank()))
                self.iteration += 1

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or '_batches' not in vars(self):  # while it is copied
            raise AttributeError(name)
        return getattr(self._batches, name)


class _Batch(list):
    """Indices of a batch, and the numbers that its seed follows from."""

    def __init__(self, indices: Iterable[int], entropy: tuple[int, ...]):
        super().__init__(indices)
        self.entropy = entropy

    def __reduce__(self) -> tuple[Any, ...]:
        return _Batch, (list(self), self.entropy)


class SeededImages(Dataset):
    """A data set whose batches are read with the random numbers of :class:`SeededBatches`.

    All else, reading and writing attributes too, is that of the data set in it.
    """

    def __init__(self, dataset: Any):
        vars(self)['_dataset'] = dataset

    # torch's loaders prefer it to __getitem__
    def __getitems__(self, batch: list[int]) -> list[Any]:
        if not isinstance(batch, _Batch):
            return self._read(batch)
        if get_worker_info() is not None:
            _seed(torch.default_generator.manual_seed, *batch.entropy)
            return self._read(batch)
        with _keeping_states():
            _seed(torch.default_generator.manual_seed, *batch.entropy)
            return self._read(batch)

    def _read(self, batch: list[int]) -> list[Any]:
        if hasattr(self._dataset, '__getitems__'):
            return self._dataset.__getitems__(batch)
        return [self._dataset[index] for index in batch]

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or '_dataset' not in vars(self):  # while it is copied
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)


def seed_batches(loader: DataLoader, seed: int) -> SeededBatches | None:
    """Let a loader's batches be augmented by the seed and their number. A loader without numbered batches stays.

    Returns:
        SeededBatches | None: Its batch sampler, or None if it has none.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return None
    batches = SeededBatches(loader.batch_sampler, seed)
    # torch refuses to set them. The loader keeps what else it was made with, which others read.
    vars(loader).update(dataset=SeededImages(loader.dataset), batch_sampler=batches)
    if hasattr(loader.sampler, 'skip'):  # by which newer loops by iterations leave out what was seen
        loader.sampler.skip = partial(_skip, loader, loader.sampler.skip)
    return batches


def _skip(loader: Any, skip: Callable[[int], Any], num_images: int) -> None:
    skip(num_images)
    loader.batch_sampler.iteration += num_images // loader.batch_size


def _seed(seed_torch: Any, *entropy: int) -> None:
    numbers = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])
    seed_torch(int(numbers[2]) << 32 | int(numbers[3]))


@contextmanager
def _keeping_states() -> Iterator[None]:
    """Leave the generators of the main process, which reads the images itself, as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

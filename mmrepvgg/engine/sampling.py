"""Training batches to look at before training begins."""

import itertools
from collections.abc import Iterator

from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader


def iterate_training_inputs(runner: Runner, num_batches: int) -> Iterator[Tensor]:
    """At most ``num_batches`` batches of training images as the model gets them, each process its own.

    Read by a loader of its own: an infinite sampler, as iteration-based trainings have it, can't be begun twice.
    """
    loader = runner.train_dataloader
    model = getattr(runner.model, 'module', runner.model)
    batches = DataLoader(
        loader.dataset,
        loader.batch_sampler.batch_size,
        sampler=DefaultSampler(loader.dataset, shuffle=True, seed=runner.seed),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        drop_last=loader.drop_last,
    )
    for batch in itertools.islice(batches, num_batches):
        yield model.data_preprocessor(batch, True)['inputs']

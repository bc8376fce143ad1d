"""Training batches that are observed before training begins."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader


def iterate_training_inputs(runner: Runner, num_batches: int) -> Iterator[Tensor]:
    """At most ``num_batches`` batches of training images, as the model gets them. Each process has its own.

    A second loader reads them: iteration-based trainings have an infinite sampler, which can't begin a second time.
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


@torch.no_grad()
def observe_inputs(
    model: nn.Module, batches: Iterable[Tensor], modules: Iterable[nn.Module], observe: Callable[[Any, Tensor], None]
) -> int:
    """Run ``model`` in eval mode on ``batches``, and call ``observe(module, x)`` for each input ``x`` of ``modules``.

    Returns:
        int: Number of batches.
    """
    handles = [module.register_forward_pre_hook(lambda module, args: observe(module, args[0])) for module in modules]
    was_training = model.training
    model.eval()
    num_batches = 0
    try:
        for batch in batches:
            model(batch)
            num_batches += 1
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return num_batches

"""Images a second of a config's training step, on images that are there already."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from ..engine.hooks import uses_channels_last
from ..measures.timing import Spread, summarise, time_interleaved
from ..models.building import build_model


def time_step(cfg: Config, batch: Mapping[str, Any], repeats: int, budget: float = 60) -> Spread:
    """Time forward, backward and update of the config's model with its optimizer wrapper, on the GPU if there is one.

    Args:
        cfg: The config.
        batch: A batch as the data loader gives it.
        repeats: Timed steps.
        budget: Seconds after which no further step is timed.

    Returns:
        Spread: Images per second.
    """
    model: Any = build_model(cfg, deploy=False).train().to(get_device())
    if uses_channels_last(cfg):
        model.to(memory_format=torch.channels_last)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')), _quiet():
        wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))

    def run() -> None:
        model.train_step(copy.deepcopy(dict(batch)), wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    [seconds] = time_interleaved([run], repeats, warm_up=2, budget=budget)
    return summarise(seconds).to_rate(len(batch['inputs']))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the line that mmengine logs for each parameter with settings of its own."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)

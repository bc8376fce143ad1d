"""Hooks of the training loop."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..data.damaged import SKIPPED
from ..models.config_types import get_type_name


class ChannelsLastHook(Hook):
    """Keep the model in channels_last memory format, with which convolutions are faster on recent CPUs and GPUs.

    The model computes the same function, and its checkpoints are the same.
    """

    # It runs before hooks that copy the model, such as EMAHook.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        runner.model.to(memory_format=torch.channels_last)


def uses_channels_last(cfg: Mapping[str, Any]) -> bool:
    """Whether the config has a :class:`ChannelsLastHook`."""
    return any(get_type_name(hook.get('type')) == ChannelsLastHook.__name__ for hook in cfg.get('custom_hooks') or ())


class SkippedImagesHook(Hook):
    """Log, at the end of each epoch, how many damaged images ``SkipDamaged`` left out, and which."""

    def before_train_epoch(self, runner: Runner) -> None:
        self._skipped: list[str] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping[str, Any] | None = None, outputs: Any = None
    ) -> None:
        for sample in (data_batch or {}).get('data_samples') or ():
            self._skipped += sample.get(SKIPPED, ())

    def after_train_epoch(self, runner: Runner) -> None:
        skipped = sorted({image for images in all_gather_object(self._skipped) for image in images})
        epoch = runner.epoch + 1  # makes the line a new one: mmengine drops repeated warnings
        if skipped:
            runner.logger.warning(
                f'{len(skipped)} damaged images were left out in epoch {epoch}, and others took their places: '
                f'{"; ".join(skipped)}'
            )
        else:
            runner.logger.info(f'no damaged image in epoch {epoch}')

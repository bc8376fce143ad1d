"""Hooks of the training loop."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner


class ChannelsLastHook(Hook):
    """Keep the model in channels_last memory format, with which convolutions are faster on recent CPUs and GPUs.

    The model computes the same function, and its checkpoints are the same.
    """

    # It runs before hooks that copy the model, such as EMAHook.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        runner.model.to(memory_format=torch.channels_last)

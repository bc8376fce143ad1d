"""mmengine's Runner, as trainings and tests use it."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from ..checkpoints.writing import replacing
from .hooks import uses_channels_last
from .logs import shorten_console, show_while_watched
from .resuming import Resumable
from .saving import WholeCheckpoints


class PlainRunner(Runner):
    """mmengine's Runner with a short console: environment, config and hooks go to the log file alone."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        return shorten_console(super().build_logger(*args, **kwargs))

    def dump_config(self) -> None:
        path = Path(self.work_dir, Path(self.cfg.filename or f'{self.timestamp}.py').name)
        if is_main_process():
            with replacing(path) as temporary:
                self.cfg.dump(temporary)
        self.logger.info(f'the whole config is in {path}, and the whole log in {self._log_dir}')

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict:
        with redirect_stdout(io.StringIO()):  # mmengine prints the path, which the log has, too
            return super().load_checkpoint(*args, **kwargs)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        # DDP lays out its copies of the gradients as the weights lie now. The hook itself comes later: then each step
        # would copy between two layouts, and torch would warn.
        if uses_channels_last(self.cfg):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return super().wrap_model(model_wrapper_cfg, model)


class TrainRunner(Resumable, WholeCheckpoints, PlainRunner):
    """A Runner for trainings, which lose nothing when they are stopped."""


class TestRunner(PlainRunner):
    """A Runner for tests. Each process has the model itself: DDP refuses exported files, which have no weights.

    The caller gets the metrics, so that the console shows its progress only.
    """

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        show_while_watched(logger)
        return logger

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        return model.to(get_device())

"""What a run says: on the console, in the log file, in JSON lines, in TensorBoard."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from ..models.config_types import get_type_name

# long lists, and what mmengine says about itself
_FOR_THE_FILE = ('paramwise_options', '"FileClient"', '"HardDiskBackend"', 'Distributed training is not used')


@contextmanager
def closing_logs() -> Iterator[None]:
    """Close the log files of the runs in this block. mmengine keeps them open, and all that it logged in memory."""
    kept = {kind: set(kind._instance_dict) for kind in _list_kept()}
    try:
        yield
    finally:
        for kind in _list_kept():
            for name in kind._instance_dict.keys() - kept.get(kind, set()):
                ended = kind._instance_dict.pop(name)
                for handler in ended.handlers if isinstance(ended, MMLogger) else ():
                    handler.close()


def _list_kept() -> list[Any]:
    """The classes whose objects mmengine keeps by the name of a run."""
    kinds: list[Any] = [MMLogger, MessageHub, Visualizer]
    for kind in kinds:
        kinds += kind.__subclasses__()  # each keeps its own
    return kinds


def shorten_console(logger: MMLogger) -> MMLogger:
    """Let the console show messages of one line alone, on stderr: stdout is for results. The log file gets all."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(sys.stderr)
            handler.addFilter(_is_for_the_console)
    return logger


def show_while_watched(logger: MMLogger) -> None:
    """Let the console show messages in a terminal alone. Warnings come everywhere, and the log file gets all."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler) and not sys.stderr.isatty():
            handler.setLevel(logging.WARNING)


def _is_for_the_console(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return '\n' not in message.strip() and not message.startswith(_FOR_THE_FILE)


class StepLoggerHook(LoggerHook):
    """mmengine's hook, which also records every step: a line of JSON, and a point in TensorBoard if that is on.

    The console has a line each ``interval`` steps, with means over the last 10 steps. A record has the step's own
    values: loss, learning rate, seconds of the step and of the wait for its data, norm of the gradients if they are
    clipped.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        record: dict[str, Any] = {}
        if self._is_due(runner, batch_idx):
            record, line = runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')
            runner.logger.info(line)
        for name, values in runner.message_hub.log_scalars.items():
            if name.startswith('train/'):
                record[name.removeprefix('train/')] = values.current()
        record |= dict(epoch=runner.epoch + 1, iter=runner.iter + 1)
        runner.visualizer.add_scalars(record, step=runner.iter + 1, file_path=self.json_log_path)

    def _is_due(self, runner: Runner, batch_idx: int) -> bool:
        if self.every_n_inner_iters(batch_idx, self.interval):
            return True
        num_batches = len(runner.train_dataloader)
        return batch_idx + 1 == num_batches and (num_batches <= self.interval or not self.ignore_last)


def add_tensorboard(cfg: Config) -> None:
    """Let a run of ``cfg`` write its scalars for TensorBoard too.

    Raises:
        ModuleNotFoundError: If tensorboard is not installed.
    """
    if find_spec('tensorboard') is None:
        raise ModuleNotFoundError('`tensorboard` needs a package of this name: pip install "mmrepvgg[tensorboard]"')
    visualizer = cfg.get('visualizer') or dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    backends: Sequence[Any] = visualizer.get('vis_backends') or []
    if not any(get_type_name(backend['type']) == 'TensorboardVisBackend' for backend in backends):
        visualizer['vis_backends'] = [*backends, dict(type='TensorboardVisBackend')]
    cfg.visualizer = visualizer

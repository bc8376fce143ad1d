"""Show where the time of a training goes: the steps, the wait for images, validation, checkpoints, the rest.

example: python tools/epoch_time.py repvgg-a0_digits
"""

import argparse
import time
from typing import Any

from mmrepvgg.commands.config_options import add_config, add_work_dir, get_config, get_work_dir
from mmrepvgg.tables import format_table

STEP, DATA, HOOKS = 'the steps: forward, backward, optimizer', 'waiting for images', 'hooks of each step, the log'
VALIDATION, CHECKPOINTS, REST = 'validation', 'checkpoints', 'the rest'
PARTS = (STEP, DATA, HOOKS, VALIDATION, CHECKPOINTS, REST)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config of the training')
    add_work_dir(parser, 'logs and checkpoints')


def run(args: argparse.Namespace) -> None:
    cfg = get_config(args, 'train_dataloader', 'val_dataloader')
    seconds = measure(cfg, get_work_dir(args, cfg))
    total = sum(seconds.values())
    rows = [(name, f'{value:.2f}', f'{value / total:.1%}') for name, value in seconds.items()]
    print(format_table(('', 'seconds', 'share'), [*rows, ('from the first step to the last', f'{total:.2f}', '')]))


def measure(cfg: Any, work_dir: str) -> dict[str, float]:
    """Train, and give the seconds of each part; together they are all the time of the training loop."""
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS as REGISTRY

    from mmrepvgg.engine.training import train

    seconds = dict.fromkeys(PARTS, 0.0)
    last = 0.0

    def lap(name: str | None) -> None:
        """Count the time since the last call for ``name``."""
        nonlocal last
        now = time.perf_counter()
        if name is not None:
            seconds[name] += now - last
        last = now

    def mark(name: str | None) -> Any:
        return lambda *args, **kwargs: lap(name)

    class Before(Hook):
        """Called before all other hooks."""

        priority = 0
        before_train_epoch, before_train_iter, after_train_iter = mark(REST), mark(DATA), mark(STEP)
        after_train_epoch, before_val, after_val_epoch = mark(DATA), mark(REST), mark(VALIDATION)

    class After(Hook):
        """Called after all other hooks."""

        priority = 100
        before_train, before_train_iter, after_train_iter = mark(None), mark(HOOKS), mark(HOOKS)
        after_train_epoch, after_val_epoch, after_train = mark(CHECKPOINTS), mark(CHECKPOINTS), mark(REST)

    for hook in (Before, After):
        REGISTRY.register_module(module=hook, force=True)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='mmengine.Before'), dict(type='mmengine.After')]
    train(cfg, work_dir)
    return seconds

"""One process of tests/test_distributed.py: trainings, tests and predictions, one after the other.

torchrun starts it as ``distributed_run.py END`` in a folder that the test has prepared. The last training ends as END
says: rank 1 is killed, or raises an error.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tool_runs import SMALL

from mmrepvgg import load_config, train
from mmrepvgg.commands.main import main
from mmrepvgg.engine.stopping import TrainingStopped

# 60 images are 5 steps of 12; the model is narrow and trained already.
STEPS, BATCH = 5, 12
# 31 images, of all classes: neither 2 nor 3 processes get as many each
SOME = 'test_dataloader.dataset.indices=' + str(list(range(0, 341, 11))).replace(' ', '')

# merged branches have a backward pass of their own
NOT_FROZEN = {'model.backbone.norm_eval': False, 'model.backbone.branches': 'merged'}


@HOOKS.register_module()
class KeepGradientsHook(Hook):
    """Writes the gradients of each step into the work dir."""

    def before_train(self, runner: Runner) -> None:
        names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
        steps: list[dict[str, Any]] = []
        self.steps = steps

        def keep(optimizer: Any, *_: Any) -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
            steps.append({names[id(p)].removeprefix('module.'): p.grad.clone() for p in parameters})

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    def after_train(self, runner: Runner) -> None:
        torch.save(self.steps, Path(runner.work_dir, f'gradients_{runner.rank}.pth'))


@HOOKS.register_module()
class KeepWeightsHook(Hook):
    """Writes what each process has at the end into the work dir."""

    def after_train(self, runner: Runner) -> None:
        torch.save(runner.model.module.state_dict(), Path(runner.work_dir, f'weights_{runner.rank}.pth'))


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends a signal to rank 1 in the second step."""

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 1 and runner.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@HOOKS.register_module()
class EndHook(Hook):
    """Ends rank 1 in the third step."""

    def __init__(self, end: str):
        self.end = end

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 2 and runner.rank == 0:
            Path('end_begins').write_text(str(time.time()))
        if runner.iter == 2 and runner.rank == 1:
            if self.end == 'killed':
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('rank 1 has no memory left')


def train_frozen(
    work_dir: str, num_processes: int, epochs: int, resume: str | bool = False, validate: bool = False, **changes: Any
) -> None:
    """Train in float64 with frozen batch norms, on batches that are the same for any number of processes."""
    launcher = 'none' if num_processes == 1 else 'pytorch'
    torch.set_default_dtype(torch.float64)
    try:
        cfg = load_config(SMALL)
        cfg.merge_from_dict(
            {
                'model.backbone.norm_eval': True,
                'load_from': 'small.pth',
                'optim_wrapper.optimizer.lr': 0.01,
                'train_dataloader.batch_size': BATCH // num_processes,
                'train_dataloader.dataset.indices': STEPS * BATCH,
                'train_dataloader.dataset.pipeline': cfg.test_pipeline,
                'train_cfg': dict(by_epoch=True, max_epochs=epochs),
                # whose end does not depend on the number of epochs
                'param_scheduler': [dict(type='CosineAnnealingLR', T_max=9, end=9, convert_to_iter_based=True)],
                'default_hooks.checkpoint': dict(
                    type='CheckpointHook', interval=1, max_keep_ckpts=-1, save_best='auto'
                ),
                'val_dataloader.dataset.indices': BATCH,
                'custom_hooks': [],
                **changes,
            }
        )
        if not validate:
            cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
        train(cfg, work_dir, resume=resume, launcher=launcher)
    finally:
        torch.set_default_dtype(torch.float32)


def stop_and_go_on(work_dir: str, **options: Any) -> None:
    """Train until a signal stops it, and then to the end."""
    try:
        train_frozen(work_dir, 2, epochs=1, **{'custom_hooks': [dict(type='SignalHook')], **options})
    except TrainingStopped as stop:
        iteration = torch.load(stop.checkpoint, weights_only=False)['meta']['iter']
        Path(work_dir, f'stop_{os.environ["RANK"]}').write_text(f'{stop.status} {iteration}')
    train_frozen(work_dir, 2, epochs=1, resume=True, **options)


def run_command(*args: object) -> None:
    """Run a command in this process, which must succeed."""
    try:
        main(list(map(str, args)))
    except SystemExit as end:
        if end.code:
            raise


def list_test(weights: str, out: str, launcher: str = 'pytorch') -> list[object]:
    metrics = ('accuracy', 'precision', 'support', 'confusion-matrix')
    return ['test', SMALL, weights, '--metrics', *metrics, '--out', out, '--work-dir', 'tests', '--launcher', launcher,
            '--cfg-options', SOME, 'test_dataloader.batch_size=4']  # fmt: skip


def run_all(end: str) -> None:
    num = int(os.environ['WORLD_SIZE'])
    train_frozen(f'from_{num}', num, epochs=1, custom_hooks=[dict(type='KeepGradientsHook')])
    if num == 2:
        train_frozen('resumed_2', num, epochs=2, resume='from_1/epoch_1.pth')
        # the best checkpoint is saved, too
        sharded = dict(strategy=dict(type='mmrepvgg.FSDPStrategy'), validate=True)
        train_frozen('sharded', num, epochs=1, **sharded)
        train_frozen('sharded', num, epochs=2, resume='sharded/epoch_1.pth', **sharded)
        stop_and_go_on('stopped')
        stop_and_go_on('stopped_sharded', **sharded)
        run_command('train', SMALL, '--launcher', 'pytorch', '--no-report', '--work-dir', 'command', '--cfg-options',
                    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'train_dataloader.dataset.indices=64',
                    'train_dataloader.batch_size=32', 'val_dataloader.dataset.indices=31')  # fmt: skip
    train_frozen(f'free_{num}', num, epochs=1, custom_hooks=[dict(type='KeepWeightsHook')], **NOT_FROZEN)
    for weights in ('small.pth', 'small.onnx'):
        run_command(*list_test(weights, f'{weights}_{num}.json'))
    run_command('predict', SMALL, 'small.onnx', 'photos', '--out', f'predictions_{num}.json', '--show-dir',
                f'pictures_{num}', '--launcher', 'pytorch')  # fmt: skip
    Path(f'done_{num}').touch()
    train_frozen(f'ended_{num}', num, epochs=1, custom_hooks=[dict(type='EndHook', end=end)])


if __name__ == '__main__':
    run_all(sys.argv[1])

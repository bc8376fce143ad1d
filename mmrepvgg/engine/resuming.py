"""The parts of a Runner with which a resumed training is the one that was not interrupted."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader

from ..checkpoints.reading import CheckpointError
from .loops import POSITION, EpochLoop
from .schedules import use_schedule_of_config
from .seeding import seed_batches
from .stopping import keep_workers


class ResumeHook(Hook):
    """Checks and changes a loaded checkpoint, and adds to a written one where in its epoch it is."""

    # EMAHook exchanges the weights with their averages later
    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        meta = checkpoint['meta']
        if isinstance(runner.train_loop, EpochLoop):
            meta[POSITION] = runner.train_loop.describe_position(meta['epoch'], meta['iter'])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        meta = checkpoint.get('meta')
        # mmengine would execute it when it resumes
        if isinstance(meta, dict) and meta.pop('config', None) is not None:
            print_log('the text of a config in the checkpoint is ignored', 'current')
        if not runner._resume:
            return
        if absent := [name for name in ('optimizer', 'message_hub') if name not in checkpoint]:
            raise CheckpointError(
                f'{runner._load_from} has no {" and no ".join(absent)}, so it can not be resumed: checkpoints of '
                'save_best, and all with save_optimizer=False, hold the weights alone. To start with them, set '
                '`load_from` of the config and leave out `resume`'
            )
        if difference := use_schedule_of_config(runner, checkpoint):
            runner.logger.warning(
                f'the schedule is another one than that of the checkpoint ({difference}): from here on, the values are '
                'those of the config'
            )
        if isinstance(runner.train_loop, EpochLoop):
            runner.train_loop.take_position(checkpoint['meta'])


class Resumable:
    """The part of a Runner that builds loaders and loops of which a training can go on anywhere."""

    def build_dataloader(self: Any, *args: Any, **kwargs: Any) -> DataLoader:
        return keep_workers(super().build_dataloader(*args, **kwargs))  # type: ignore[misc]

    def build_train_loop(self: Any, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        if isinstance(loop, BaseLoop):
            return loop
        # its batches get their numbers before a loop asks for the first ones
        options = dict(seed=self.seed, diff_rank_seed=self._randomness_cfg.get('diff_rank_seed', False))
        self._train_dataloader = self.build_dataloader(self._train_dataloader, **options)
        batches = seed_batches(self._train_dataloader, self.seed)
        if _is_by_epoch(loop):
            settings = {name: value for name, value in loop.items() if name not in ('type', 'by_epoch')}
            built = EpochLoop(self, self._train_dataloader, **settings)
            built.batches = batches
            return built
        return super().build_train_loop(loop)  # type: ignore[misc]


def _is_by_epoch(loop: dict[str, Any]) -> bool:
    """Whether these are the settings of mmengine's loop by epochs, and not of a loop of its kind."""
    kind = loop.get('type')
    if isinstance(kind, str):
        kind = LOOPS.get(kind)
    return kind is EpochBasedTrainLoop or (kind is None and bool(loop.get('by_epoch')))

"""One training run through mmengine's Runner."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..checkpoints.runner_files import reading_safely
from ..checkpoints.writing import naming_full_disk
from ..data.classes import check_training_classes, require_labels
from ..data.damaged import skip_damaged_images
from ..data.faster_steps import use_faster_steps, use_own_reading
from ..data.layout import DataError, get_num_classes
from ..data.transparency import warn_of_transparent_data
from ..models.config_types import get_type_name, require_model
from .compilation import add_compilation, explaining_compilation
from .head_start import HeadStartHook
from .locking import occupying
from .logs import add_tensorboard, closing_logs
from .metrics import check_topk
from .processes import prepare_processes
from .resuming import ResumeHook
from .runners import TrainRunner
from .seeding import SeedHook
from .sharding import make_strategy_runner
from .starting import Start, choose_start, read_pretrained, require_backbone, require_branches, require_same_shapes
from .stopping import StopHook, stopping_at_signals


@closing_logs()
def train(
    cfg: Config,
    work_dir: str,
    *,
    resume: bool | str = False,
    amp: bool = False,
    compile: bool = False,
    auto_scale_lr: bool = False,
    tensorboard: bool = False,
    skip_damaged: bool = False,
    launcher: str = 'none',
) -> str | None:
    """Train the model of ``cfg``.

    Args:
        cfg: The config. :func:`mmrepvgg.data.layout.check_data` can check its data before.
        work_dir: Folder for logs and checkpoints.
        resume: Checkpoint to go on from, or True for the latest whole one in ``work_dir``. If ``work_dir`` has none
            yet, the training starts as without ``resume``.
        amp: Train in mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.
        compile: Compile the backbone (:class:`~mmrepvgg.engine.compilation.CompileHook`), as ``compile = True`` of the
            config does, or ``compile = dict(...)`` with arguments of that hook.
        auto_scale_lr: Scale the learning rate by the total batch size over ``cfg.auto_scale_lr.base_batch_size``.
        tensorboard: Write the log for TensorBoard too.
        skip_damaged: Go on without images that can't be read, and log them at the end of each epoch. Otherwise the
            first one ends the training.
        launcher: Way in which the processes were started: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Returns:
        str | None: The last checkpoint that this training wrote. If it wrote none, the checkpoint from which it was
        resumed, or None.

    Raises:
        CompilationError: If the backbone can't be compiled, or nothing can be on this machine.
        CheckpointError: If a checkpoint to start from can't be read safely, or lacks weights of the backbone.
        CheckpointFormError: If it is in another form than the model, or if a model in deploy form has no checkpoint to
            start from.
        DataError: If the training data has more classes than the model, fewer images than a batch, or no labels.
        OccupiedError: If another training writes into ``work_dir``.
        NoSpaceError: If there is no space for a checkpoint or the log.
        TrainingStopped: If SIGTERM, SIGINT or SIGHUP came: after the iteration, with a checkpoint of it. It is a
            ``KeyboardInterrupt``. In other threads than the main one, signals are not handled.
        ModuleNotFoundError: If ``tensorboard`` is given, and that package is not installed.
        UnreadableImageError: If a training image is missing or damaged, without ``skip_damaged``. The message names it.
        ValueError: If ``amp`` is given for a config with another optimizer wrapper, if the config has no epoch after
            its warm-up, if ``compile`` is given for a model that can't be one graph, if it measures a top-k accuracy of
            fewer than k classes, or if this process was not started as ``launcher`` says.
    """
    cfg.work_dir = work_dir
    require_model(cfg)
    if amp:
        _use_mixed_precision(cfg)
    # taken out of the config, since mmengine has a setting of this name
    if options := cfg.pop('compile', False) or compile:
        add_compilation(cfg, options)
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('the config must have auto_scale_lr = dict(base_batch_size=...) for `auto_scale_lr`')
        cfg.auto_scale_lr.enable = True
    if tensorboard:
        add_tensorboard(cfg)
    _check_epochs(cfg)
    use_own_reading(cfg)
    replaced = use_faster_steps(cfg)
    if skip_damaged:
        skip_damaged_images(cfg)
    prepare_processes(cfg, launcher)

    with ExitStack() as stack:
        # the other processes of a run write nothing; where it is refused, their launcher ends them
        if launcher == 'none' or os.environ['RANK'] == '0':
            stack.enter_context(naming_full_disk(work_dir, Path(work_dir)))
            stack.enter_context(occupying(work_dir))
        start = choose_start(cfg, work_dir, resume)
        runner = _make_runner(cfg, start)
        if replaced:
            runner.logger.info(f"{', '.join(replaced)}: this package's, which give the same images faster")
        resumed = start.path if start.resumes else None
        del start  # and the weights in it
        stop = StopHook()
        runner.register_hook(stop)
        with explaining_compilation(), reading_safely(), stopping_at_signals(stop):
            runner.train()
    written = [hook.last_ckpt for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.last_ckpt]
    return written[-1] if written else resumed


def _make_runner(cfg: Config, start: Start) -> Any:
    """A Runner that is ready to train from ``start``."""
    cfg.load_from, cfg.resume = start.path, start.resumes
    if start.checkpoint is not None and start.resumes and cfg.get('randomness', {}).get('seed') is None:
        # the order of the images goes on, too; mmengine takes this seed when the loaders are made
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': start.checkpoint.meta.get('seed')}
    pretrained = read_pretrained(cfg.model)
    runner = make_strategy_runner(cfg) if 'strategy' in cfg else TrainRunner.from_cfg(cfg)
    for hook in (ResumeHook(), SeedHook(), HeadStartHook()):
        runner.register_hook(hook)
    model = getattr(runner.model, 'module', runner.model)
    if start.checkpoint is not None:
        require_backbone(model, start.checkpoint)
        if start.resumes:
            require_same_shapes(model, start.checkpoint)
    for weights, prefix in pretrained:
        require_backbone(model, weights, prefix)
    if start.checkpoint is None and not pretrained:
        require_branches(model)
    _check_data(cfg, runner)
    for reason in start.skipped:
        runner.logger.warning(f'skipped: {reason}')
    runner.logger.info(start.reason)
    return runner


def _check_epochs(cfg: Config) -> None:
    """Check that the training is longer than the warm-up. A schedule without an ``end`` needs an epoch after it."""
    schedulers = cfg.get('param_scheduler') or []
    epochs = cfg.get('train_cfg', {}).get('max_epochs')
    if epochs is None:
        return
    if epochs < 1:
        raise ValueError(f'train_cfg.max_epochs must be at least 1, got {epochs}')
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        begin = scheduler.get('begin', 0)
        if scheduler.get('by_epoch', True) and 'end' not in scheduler and begin >= epochs:
            raise ValueError(
                f'train_cfg.max_epochs must be above {begin}, where the warm-up of param_scheduler ends, got {epochs}; '
                'for a shorter training, let the warm-up end earlier, and let the next schedule begin there'
            )


def _check_data(cfg: Config, runner: Runner) -> None:
    """Find data that would end the training after a while, or with which it would train nothing."""
    num_classes = get_num_classes(cfg)
    dataset = runner.train_dataloader.dataset
    warn_of_transparent_data(dataset, cfg.train_dataloader.dataset)
    if num_classes is not None:
        check_topk(cfg, 'val_evaluator', num_classes)
        require_labels(dataset, 'train')
        check_training_classes(dataset, num_classes)
    if isinstance(runner.train_loop, EpochBasedTrainLoop) and not len(runner.train_dataloader):
        raise DataError(
            f'the {len(dataset)} training images do not fill one batch, so nothing would be '
            'trained; set a smaller train_dataloader.batch_size'
        )


def _use_mixed_precision(cfg: Config) -> None:
    if 'strategy' in cfg:
        raise ValueError(
            'a config with a strategy has its own mixed precision: leave out `amp`, and set strategy.model_wrapper.'
            "mixed_precision, for example to dict(param_dtype='bfloat16')"
        )
    wrapper = get_type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'`amp` replaces an optim_wrapper of type OptimWrapper only, and the config has {wrapper}')
    cfg.optim_wrapper.type = 'mmrepvgg.AmpOptimWrapper'

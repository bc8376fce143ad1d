"""One training run through mmengine's Runner."""

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from ..checkpoints.reading import CheckpointError, read_checkpoint
from .distributed import prepare_launcher


def train(
    cfg: Config,
    work_dir: str,
    *,
    resume: bool | str = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: str = 'none',
) -> str | None:
    """Train the model of ``cfg``.

    Args:
        cfg: The config. Its data is expected to be there (:func:`mmrepvgg.data.layout.check_data`).
        work_dir: Where logs and checkpoints go.
        resume: Go on from this checkpoint, or (True) from the latest one in ``work_dir``.
        amp: Mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.
        auto_scale_lr: Scale the learning rate by the total batch size over ``cfg.auto_scale_lr.base_batch_size``.
        launcher: How the processes were started.

    Returns:
        The last checkpoint, or None if the config writes none.

    Raises:
        CheckpointError: If a checkpoint to start from can't be read safely or has none of the backbone's weights.
        ValueError: If ``amp`` is given for a config with an optimizer wrapper of its own.
    """
    cfg.work_dir = work_dir
    if resume:
        cfg.resume = True
        cfg.load_from = resume if isinstance(resume, str) else None
    if amp:
        _use_mixed_precision(cfg)
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('the config must have auto_scale_lr = dict(base_batch_size=...) for --auto-scale-lr')
        cfg.auto_scale_lr.enable = True
    prepare_launcher(cfg, launcher)

    start = cfg.get('load_from')
    if cfg.get('resume') and start is None and Path(work_dir).is_dir():
        start = find_latest_checkpoint(work_dir)
    # Read before the Runner does: some versions of mmengine would fall back to an unsafe load.
    checkpoint = read_checkpoint(start) if start else None
    runner = Runner.from_cfg(cfg)
    if checkpoint is not None:
        model = getattr(runner.model, 'module', runner.model)
        # the counters of batches are allowed to miss: files of old torch have none, and none is needed
        wanted = [k for k in model.state_dict() if k.startswith('backbone.') and not k.endswith('num_batches_tracked')]
        if absent := [key for key in wanted if key not in checkpoint.state_dict]:
            raise CheckpointError(
                f'{start} lacks {len(absent)} of the {len(wanted)} tensors of the backbone ({absent[0]}, ...); '
                'the Runner would leave these at random values. Give a checkpoint of the same arch and form'
            )
    runner.train()
    return find_latest_checkpoint(work_dir)


def _use_mixed_precision(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper', 'mmrepvgg.AmpOptimWrapper'):
        raise ValueError(f'--amp replaces optim_wrapper.type OptimWrapper only, and the config has {wrapper}')
    cfg.optim_wrapper.type = 'mmrepvgg.AmpOptimWrapper'

"""One training run through mmengine's Runner."""

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..models.config_types import get_type_name
from .distributed import prepare_launcher
from .starting import IgnoreConfigTextHook, choose_start, read_pretrained, read_start, require_backbone


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
        resume: Go on from this checkpoint, or (True) from the latest one in ``work_dir``. If there is none yet, start
            as without ``resume``.
        amp: Mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.
        auto_scale_lr: Scale the learning rate by the total batch size over ``cfg.auto_scale_lr.base_batch_size``.
        launcher: How the processes were started.

    Returns:
        The last checkpoint that this training wrote; if it wrote none, the one from which it was resumed. None if
        there is neither: the config has no epoch or no checkpoint hook.

    Raises:
        CheckpointError: If a checkpoint to start from can't be read safely or lacks weights of the backbone.
        ValueError: If ``amp`` is given for a config with an optimizer wrapper of its own.
    """
    cfg.work_dir = work_dir
    start = choose_start(cfg, work_dir, resume)
    cfg.load_from, cfg.resume = start.path, start.resumes
    if amp:
        _use_mixed_precision(cfg)
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('the config must have auto_scale_lr = dict(base_batch_size=...) for `auto_scale_lr`')
        cfg.auto_scale_lr.enable = True
    prepare_launcher(cfg, launcher)

    checkpoint = read_start(start)
    pretrained = read_pretrained(cfg.model)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(IgnoreConfigTextHook())
    model = getattr(runner.model, 'module', runner.model)
    if checkpoint is not None:
        require_backbone(model, checkpoint)
    for weights, prefix in pretrained:
        require_backbone(model, weights, prefix)
    runner.logger.info(start.reason)
    runner.train()
    written = [hook.last_ckpt for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.last_ckpt]
    return written[-1] if written else start.path if start.resumes else None


def _use_mixed_precision(cfg: Config) -> None:
    wrapper = get_type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'`amp` replaces an optim_wrapper of type OptimWrapper only, and the config has {wrapper}')
    cfg.optim_wrapper.type = 'mmrepvgg.AmpOptimWrapper'

"""One training run through mmengine's Runner."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from ..checkpoints.reading import Checkpoint, CheckpointError, read_checkpoint
from ..models.forms import INPUT_QUANTIZER
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
        CheckpointError: If a checkpoint to start from can't be read safely or lacks weights of the backbone.
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
    pretrained = _read_pretrained(cfg)
    runner = Runner.from_cfg(cfg)
    model = getattr(runner.model, 'module', runner.model)
    if checkpoint is not None:
        _require_backbone(model, checkpoint, 'backbone.')
    if pretrained is not None:
        _require_backbone(model, *pretrained)
    runner.train()
    return find_latest_checkpoint(work_dir)


def _read_pretrained(cfg: Config) -> tuple[Checkpoint, str] | None:
    """The file that ``backbone.init_cfg`` names, if any, and what the backbone's keys begin with in it."""
    init_cfg = cfg.model.get('backbone', {}).get('init_cfg')
    if not isinstance(init_cfg, Mapping) or init_cfg.get('type') != 'Pretrained' or '://' in init_cfg['checkpoint']:
        return None
    return read_checkpoint(init_cfg['checkpoint']), init_cfg.get('prefix', '')


def _require_backbone(model: Any, checkpoint: Checkpoint, prefix: str) -> None:
    """Refuse a checkpoint that leaves parts of the backbone at random values: mmengine only logs that."""
    wanted = {
        f'{prefix}{key.removeprefix("backbone.")}': value.shape
        for key, value in model.state_dict().items()
        # files of torch < 0.4.1 have no such counters, and torch fills them in
        if key.startswith('backbone.')
        and not key.endswith('num_batches_tracked')
        # observed yet where the checkpoint has none
        and f'.{INPUT_QUANTIZER}.' not in key
    }
    # an inserted norm starts as the identity function where the checkpoint has none
    if checkpoint.is_deploy_form:
        wanted = {key: shape for key, shape in wanted.items() if '.deploy_norm.' not in key}
    found = checkpoint.state_dict
    if absent := [key for key, shape in wanted.items() if key not in found or found[key].shape != shape]:
        raise CheckpointError(
            f'{checkpoint.path} lacks {len(absent)} of the {len(wanted)} tensors of the backbone, or has them in '
            f'another shape ({absent[0]}, ...); they would be left at random values. Give a checkpoint of the same '
            "arch and form, and for init_cfg the prefix of its backbone (prefix='backbone.')"
        )


def _use_mixed_precision(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper', 'mmrepvgg.AmpOptimWrapper'):
        raise ValueError(f'--amp replaces optim_wrapper.type OptimWrapper only, and the config has {wrapper}')
    cfg.optim_wrapper.type = 'mmrepvgg.AmpOptimWrapper'

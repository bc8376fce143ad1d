"""The Runner's processes: those that read images, and those of distributed runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config

from ..models.config_types import get_type_name
from .launchers import check_launcher, join_processes


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Set ``cfg`` up for ``num_workers=0`` and for a training under ``launcher``, before the Runner is made.

    On GPUs mmengine lets the processes find each other, on NCCL. Without a GPU it would call ``torch.cuda.set_device``;
    they join here, on gloo.

    Raises:
        ValueError: If this process was not started as ``launcher`` says, or if batch norms of the config need a GPU.
    """
    _prepare_loaders(cfg)
    cfg.launcher = launcher
    check_launcher(launcher)
    if launcher == 'none' or torch.cuda.is_available():
        return
    _require_norms_of_cpus(cfg)
    join_processes(launcher, cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout'))
    options = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**options, **cfg.get('model_wrapper_cfg', {})}


def prepare_test_processes(cfg: Config, launcher: str) -> None:
    """Set ``cfg`` up for ``num_workers=0`` and for a test under ``launcher``. The processes join on gloo."""
    _prepare_loaders(cfg)
    cfg.launcher = launcher
    join_processes(launcher, cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout'))


def _prepare_loaders(cfg: Config) -> None:
    """Leave out options that torch refuses for a data loader without workers."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None and not loader.get('num_workers'):
            for option in ('persistent_workers', 'prefetch_factor'):
                loader.pop(option, None)


def _require_norms_of_cpus(cfg: Config) -> None:
    """Refuse batch norms that are synchronised over processes. DDP's own error does not say what to change."""
    if cfg.get('sync_bn') or _has_type(cfg.model, ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')):
        raise ValueError(
            'batch norms that are synchronised over processes (SyncBN) run on GPUs only, and there is none here; leave '
            "out sync_bn of the config, or give the backbone norm_cfg=dict(type='BN')"
        )


def _has_type(part: Any, names: Sequence[str]) -> bool:
    """Whether a part of a config, or a part of it, is of one of the types."""
    if isinstance(part, Mapping):
        return get_type_name(part.get('type')) in names or any(_has_type(value, names) for value in part.values())
    return isinstance(part, list | tuple) and any(_has_type(value, names) for value in part)

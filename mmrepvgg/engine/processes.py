"""Distributed runs on machines without a GPU, which mmengine's own start-up refuses."""

import torch
from mmengine.config import Config


def prepare_launcher(cfg: Config, launcher: str) -> None:
    """Set ``cfg`` up for ``launcher``; without a GPU, start torch's process group on gloo before the Runner does.

    mmengine would call ``torch.cuda.set_device`` in any case.
    """
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise ValueError(f'without a GPU, `launcher` must be pytorch (torchrun), got {launcher}')
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {})}

"""The processes of a run: those that read images, and those of distributed runs."""

import torch
from mmengine.config import Config


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Set ``cfg`` up for ``num_workers=0`` and for ``launcher``, before the Runner is made.

    torch refuses some options of a data loader without workers: they are left out. In distributed runs without a GPU,
    the process group is started here, on gloo: mmengine would call ``torch.cuda.set_device``.

    Raises:
        ValueError: If there is no GPU and another launcher than torchrun's.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None and not loader.get('num_workers'):
            for option in ('persistent_workers', 'prefetch_factor'):
                loader.pop(option, None)
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise ValueError(f'without a GPU, `launcher` must be pytorch (torchrun), got {launcher}')
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {})}

"""The processes that read images."""

from mmengine.config import Config


def drop_worker_options(cfg: Config) -> None:
    """Leave out of ``cfg`` what torch refuses where there is no worker, so that ``num_workers=0`` alone is enough."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None and not loader.get('num_workers'):
            for option in ('persistent_workers', 'prefetch_factor'):
                loader.pop(option, None)

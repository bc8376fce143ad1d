"""Trains two epochs from shards and tests, on as many ranks as torchrun starts; each rank notes the images it got.

python -m torch.distributed.run --nproc-per-node 2 sharded_run.py CONFIG DATA OUT_DIR
"""

import json
import os
import sys
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmrepvgg import evaluate, load_config, train


@HOOKS.register_module()
class Notes(Hook):
    """Notes the images of each epoch of training."""

    def __init__(self, path: str):
        self.path = path
        self.epochs: list[list[str]] = []

    def before_train_epoch(self, runner):
        self.epochs.append([])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.epochs[-1] += [sample.img_path for sample in data_batch['data_samples']]

    def after_train(self, runner):
        Path(self.path).write_text(json.dumps(self.epochs))


if __name__ == '__main__':
    config, data, out = sys.argv[1:]
    cfg = load_config(config, ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.interval=2'])
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = data
        # 101 images of all shards, which neither two ranks nor batches of 12 divide
        loader.dataset.indices = list(range(0, 101 * 3, 3))
        loader.update(num_workers=2, batch_size=12, drop_last=False)
    cfg.custom_hooks = [dict(type='Notes', path=f'{out}/rank{os.environ["RANK"]}.json')]
    checkpoint = train(cfg, out, launcher='pytorch')
    cfg.custom_hooks = []
    evaluate(cfg, checkpoint, out, metrics=['accuracy'], out=f'{out}/tested.json', launcher='pytorch')

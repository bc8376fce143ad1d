"""Put the images of a config into tar shards, WebDataset's format, from which trainings read without unpacking.

The shards go to OUT_DIR/train and OUT_DIR/val. The same command takes up an interrupted run: whole shards stay.

example: mmrepvgg shard repvgg-a0_8xb32 data/imagenet-shards
"""

import argparse

from ..progress import starting
from .arguments import positive_int
from .config_options import add_config, get_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config whose data sets name the images and their classes')
    parser.add_argument('folder', metavar='OUT_DIR', help='folder for the shards')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val'],
        help='the data to take, that of <split>_dataloader (default: train val)',
    )
    parser.add_argument(
        '--shard-size', type=positive_int, default=512, metavar='MB', help='size of a shard (default: 512)'
    )


def run(args: argparse.Namespace) -> None:
    cfg = get_config(args, *(f'{split}_dataloader' for split in args.splits))

    with starting():
        from ..data.shard_writing import write_shards

    for done in write_shards(cfg, args.folder, args.splits, shard_size=args.shard_size * 1_000_000):
        kept = f' ({done.num_kept} were there already)' if done.num_kept else ''
        print(f'{done.folder}: {done.num_images} images in {done.num_shards} shards{kept}, {done.size / 1e6:.1f} MB')

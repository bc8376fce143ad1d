"""Times the reading of images from a folder and from tar shards: the bytes alone, and with the training pipeline.

The images are pieces of scikit-learn's two photographs, 500x375, in JPEG, read in random order by one process.

    python -m studies.shard_reading work_dirs/shard-reading --images 4000
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.registry import DATASETS, DefaultScope

from mmrepvgg import load_config, write_shards
from mmrepvgg.benchmark.data_photos import write_photos
from mmrepvgg.measures.timing import summarise, time_interleaved

ROUNDS = 10
_BATCH = 200


def make_readers(dataset: Any) -> list[Callable[[], object]]:
    """Functions that read some images: their bytes alone, and through the pipeline."""
    random = np.random.default_rng(0)
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    return [
        lambda: [fileio.get(paths[index]) for index in random.integers(len(paths), size=_BATCH)],
        lambda: [dataset[index] for index in random.integers(len(paths), size=_BATCH)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='folder for the images and the shards')
    parser.add_argument('--images', type=int, default=4000, help='number of images (default: 4000)')
    args = parser.parse_args()
    write_photos(args.folder / 'images/train', args.images // 4)  # of 4 classes
    cfg = load_config('repvgg-a0_8xb32')
    cfg.train_dataloader.dataset.data_root = str(args.folder / 'images')
    (written,) = write_shards(cfg, args.folder / 'shards', ['train'])

    settings = cfg.train_dataloader.dataset
    sharded = dict(settings, type='mmrepvgg.ShardedImages', data_root=str(args.folder / 'shards'))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        readers = [reader for each in (settings, sharded) for reader in make_readers(DATASETS.build(each))]
    times = time_interleaved(readers, ROUNDS, warm_up=2)
    print(f'{written.num_images} images, {written.size / 1e6:.0f} MB in {written.num_shards} shards; images a second:')
    for name, taken in zip(
        ('folder, bytes', 'folder, pipeline', 'shards, bytes', 'shards, pipeline'), times, strict=True
    ):
        print(f'{name}: {_BATCH / summarise(taken).median:,.0f}')


if __name__ == '__main__':
    main()

"""Images from tar shards, each read from its place. Every pipeline that reads files reads them, too."""

import functools
import os
import re

from mmengine.fileio import register_backend
from mmengine.fileio.backends import BaseStorageBackend
from mmpretrain.datasets import BaseDataset

from .shard_index import read_index

# shard://<folder>/<name>.tar#<offset>+<size>/<path of the file that it was>
_SCHEME = 'shard'
_ADDRESS = re.compile(rf'{_SCHEME}://(?P<shard>.+?\.tar)#(?P<offset>\d+)\+(?P<size>\d+)/', re.DOTALL)
_MAX_OPEN = 128


@register_backend(_SCHEME, prefixes=_SCHEME, force=True)
class ShardBackend(BaseStorageBackend):
    """Reads the addresses of images in shards for ``mmengine.fileio``, and so for ``LoadImageFromFile``."""

    def get(self, filepath: str) -> bytes:
        """Read an image.

        Raises:
            ValueError: If the address is none of a shard.
            OSError: If the shard is missing or ends too early.
        """
        match = _ADDRESS.match(str(filepath))
        if match is None:
            raise ValueError(f'{filepath} is no address of an image in a shard')
        size = int(match['size'])
        content = os.pread(_open_shard(match['shard']).descriptor, size, int(match['offset']))
        if len(content) != size:
            raise OSError(f'{match["shard"]} ends within the image')
        return content

    def get_text(self, filepath: str) -> str:
        return self.get(filepath).decode()


class _OpenShard:
    """A shard that stays open: on network storage it is the opening that takes long.

    Workers that were forked share it, which does no harm, as ``pread`` has no position.
    """

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self):
        os.close(self.descriptor)


_open_shard = functools.lru_cache(_MAX_OPEN)(_OpenShard)


class ShardedImages(BaseDataset):
    """Images from a folder of shards that :func:`mmrepvgg.write_shards` made, with their labels and names of classes.

    Each image has its number, as in a folder of files. So mmengine's samplers give every image to one of all workers
    and ranks, shuffled anew in each epoch. If the images can't be divided by the number of ranks, up to ``ranks - 1``
    of them are given twice, so that all ranks do as many iterations; a test counts them once.

    Args:
        data_root: Folder of the shards; or of the folders of ``split`` or ``data_prefix``.
        split: Subfolder, for configs of ``ImageNet``.
        data_prefix: Subfolder, for configs of ``CustomDataset``.
        **options: Other arguments of mmpretrain's ``BaseDataset``, such as ``pipeline`` and ``metainfo``.

    Raises:
        ShardError: If the index or a shard is missing or damaged.
    """

    def __init__(self, data_root: str = '', split: str = '', data_prefix: str | dict = '', **options):
        super().__init__(ann_file='', data_root=data_root, data_prefix=data_prefix or split, **options)

    def load_data_list(self) -> list[dict]:
        index = read_index(self.img_prefix)
        # shards of before may be open, in the same place
        _open_shard.cache_clear()
        if self.CLASSES is None:
            self._metainfo['classes'] = index.classes
        self.folder_to_idx = {folder: number for number, folder in enumerate(index.folders)}
        return [
            dict(
                # an address has :// once
                img_path=f'{_SCHEME}://{os.path.join(self.img_prefix, shard.name)}#{image.offset}+{image.size}/'
                + image.path.replace('://', ':/'),
                gt_label=image.label,
            )
            for shard in index.shards
            for image in shard.images
        ]

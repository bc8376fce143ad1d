"""Put the images of a config into tar shards."""

import json
import os
import random
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from ..checkpoints.writing import replacing, require_writable
from ..printable import make_printable
from ..progress import track
from .classes import get_folders, get_names, iterate_parts
from .layout import DataError
from .relative_paths import list_relative
from .shard_index import INDEX, Shard, ShardError, ShardIndex, read_index
from .shard_scanning import scan_shard
from .wrappers import get_dataset, replace_pipeline

try:
    from webdataset import TarWriter
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('shards are written by webdataset: pip install "mmrepvgg[shards]"') from error

# A member of a tar file has a header of 512 bytes, and is filled up to a multiple of 512.
_TAR_BLOCK = 512
_TEXTS_SIZE = 4 * _TAR_BLOCK


class _Source(NamedTuple):
    """An image to put into a shard."""

    path: str
    shown_path: str
    label: int
    size: int

    @property
    def size_in_shard(self) -> int:
        return _TEXTS_SIZE + _TAR_BLOCK + -(-self.size // _TAR_BLOCK) * _TAR_BLOCK


@dataclass(frozen=True)
class WrittenShards:
    """Shards of a split.

    Attributes:
        folder: Folder of the shards.
        num_images: Number of images in all shards.
        num_shards: Number of shards.
        num_kept: Number of shards that were there already.
        size: Bytes of all shards.
    """

    folder: Path
    num_images: int
    num_shards: int
    num_kept: int
    size: int


def write_shards(
    cfg: Config, folder: str | Path, splits: Sequence[str] = ('train', 'val'), *, shard_size: int = 512_000_000
) -> list[WrittenShards]:
    """Put the images of splits of a config's data into tar shards: ``folder/<split>/<split>-000000.tar`` and so on.

    Training images are shuffled, always in the same way; others keep their order. Files are copied as they are. A run
    that was interrupted is taken up by the same call: whole shards are compared with the images, and stay.
    ``index.json`` is written last.

    Args:
        cfg: The config. Its data sets name the files and their labels.
        folder: Folder for the shards.
        splits: Any of ``'train'``, ``'val'`` and ``'test'``.
        shard_size: Largest number of bytes in a shard, unless one image alone has more.

    Raises:
        DataError: If images are missing, empty or have no single label, or if the disk is too small.
        ShardError: If there are other shards in ``folder``, or damaged ones.
        ValueError: If ``shard_size`` is below 1, or the config has no data for a split.
        OSError: If a file can't be read or written.
    """
    if shard_size < 1:
        raise ValueError(f'`shard_size` must be at least 1, got {shard_size}')
    plans = {split: _Plan(cfg, split, Path(folder, split), shard_size) for split in splits}
    return [plan.carry_out() for plan in plans.values()]


class _Plan:
    """The shards of a split: which images are in which, and which shards are there already."""

    def __init__(self, cfg: Config, split: str, folder: Path, shard_size: int):
        self.split = split
        self.folder = folder
        require_writable(folder / INDEX)
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            dataset: Any = DATASETS.build(replace_pipeline(get_dataset(cfg, split), []))
        self.classes = get_names(dataset)
        folders = {get_folders(part) for part in iterate_parts(dataset)}
        self.folders = folders.pop() if len(folders) == 1 else ()
        sources = _list_sources(dataset, split)
        if split == 'train':
            random.Random(0).shuffle(sources)
        self.shards = {f'{split}-{n:06d}.tar': part for n, part in enumerate(_divide(sources, shard_size))}
        self.num_images = len(sources)
        self._check_folder()

    def _check_folder(self) -> None:
        # a run that was killed leaves the shard on which it worked under such a name
        for path in self.folder.glob(f'.*.{self.split}-*.tar'):
            path.unlink()
        others = sorted({path.name for path in self.folder.glob('*.tar')} - self.shards.keys())
        if others:
            raise ShardError(
                f'{self.folder} holds other shards ({others[0]}, ...); remove them or name another `folder`'
            )
        needed = sum(
            source.size_in_shard
            for name, sources in self.shards.items()
            if not (self.folder / name).exists()
            for source in sources
        )
        parent = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if (free := shutil.disk_usage(parent).free) < needed:
            raise DataError(f'the shards take {needed / 1e9:.1f} GB, and {self.folder} has {free / 1e9:.1f} GB free')

    def carry_out(self) -> WrittenShards:
        found: list[Shard] = []
        kept = {name for name in self.shards if (self.folder / name).exists()}
        # index.json is there only if all shards were
        hashes = {}
        if (self.folder / INDEX).exists() and len(kept) == len(self.shards):
            hashes = {shard.name: shard.sha256 for shard in read_index(self.folder).shards}
        for _ in track(self._iterate(found, kept, hashes), f'writing {self.split}', total=self.num_images):
            pass
        with replacing(self.folder / INDEX) as temporary:
            ShardIndex(self.classes, self.folders, tuple(found)).write(temporary)
        size = sum(shard.size for shard in found)
        return WrittenShards(self.folder, self.num_images, len(found), len(kept), size)

    def _iterate(self, found: list[Shard], kept: set[str], hashes: dict[str, str]) -> Iterator[None]:
        """Check and write the shards, and yield once an image."""
        first_key = 0
        for name, sources in self.shards.items():
            path = self.folder / name
            if name in kept:
                shard = scan_shard(path)
                if hashes.get(name, shard.sha256) != shard.sha256:
                    raise ShardError(
                        f'{path} is damaged: its hash is not that of {INDEX}; remove it and run this again'
                    )
                yield from [None] * len(sources)
            else:
                with replacing(path) as temporary:
                    yield from _write_shard(temporary, sources, first_key)
                    shard = scan_shard(temporary)
            if [*zip(shard.paths, shard.labels, shard.sizes, strict=True)] != [source[1:] for source in sources]:
                raise ShardError(
                    f'{path} holds other images than those of the {self.split} data of the config, or was made '
                    'with another `shard_size`; remove the shards or name another `folder`'
                )
            found.append(replace(shard, name=name))
            first_key += len(sources)


def _list_sources(dataset: Any, split: str) -> list[_Source]:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not all('img_path' in info for info in infos) or not infos:
        raise DataError(f'the {split} data of the config has no image files')
    paths = [str(info['img_path']) for info in infos]
    sources, faults = [], []
    found = list(zip(paths, list_relative(paths), infos, strict=True))
    for path, shown_path, info in track(found, f'looking at {split}'):
        label = info.get('gt_label')
        try:
            status = os.stat(path)
        except OSError as error:
            size, fault = 0, error.strerror
        else:
            size = status.st_size
            if not stat.S_ISREG(status.st_mode):
                fault = 'it is no file'
            else:
                fault = 'the file is empty' if not size else '' if isinstance(label, int) else 'it has no single label'
        if fault:
            faults.append(f'{make_printable(path)} ({fault})')
        else:
            sources.append(_Source(path, shown_path, label, size))
    if faults:
        raise DataError(
            f'{len(faults)} of the {len(paths)} images of the {split} data can not be put into shards: '
            f'{", ".join(faults[:5])}{", ..." if len(faults) > 5 else ""}; mend them, or remove them from the data'
        )
    return sources


def _divide(sources: Sequence[_Source], shard_size: int) -> Iterator[list[_Source]]:
    part: list[_Source] = []
    size = 0
    for source in sources:
        if part and size + source.size_in_shard > shard_size:
            yield part
            part, size = [], 0
        part.append(source)
        size += source.size_in_shard
    yield part


def _write_shard(path: Path, sources: Sequence[_Source], first_key: int) -> Iterator[None]:
    """Write a shard, and yield after each image. The same images always give the same bytes."""
    with open(path, 'wb') as file, TarWriter(file, user='', group='', encoder=False, mtime=0) as writer:
        for key, source in enumerate(sources, first_key):
            content = Path(source.path).read_bytes()
            if len(content) != source.size:
                raise DataError(
                    f'{make_printable(source.path)} was changed while the shards were written; run this again'
                )
            suffix = Path(source.path).suffix[1:].lower() or 'img'
            texts = dict(cls=b'%d' % source.label, json=json.dumps(dict(path=source.shown_path)).encode())
            writer.write({'__key__': f'{key:08d}', suffix: content, **texts})
            yield

"""Shards of images, WebDataset's tar files, and the index beside them. Imports no torch.

A folder of shards holds ``<split>-000000.tar``, ``<split>-000001.tar``, ... and ``index.json``, which is written last.
In a shard each image has three members of one key: ``00000012.cls`` (label), ``00000012.jpg`` (the file as it was),
and ``00000012.json`` (its path). Nothing is unpacked: the index has the place of each image in its shard.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

INDEX = 'index.json'
_FORMAT = 'mmrepvgg shards 1'
# No picture is larger. What claims to be would fill the memory.
MAX_IMAGE_SIZE = 2**30


class ShardError(ValueError):
    """Shards that are missing or damaged, or not those of their index."""


class ShardImage(NamedTuple):
    """An image in a shard.

    Attributes:
        path: Path of the file that it was, relative to the folder of all images.
        label: Index of its class.
        offset: Place of its first byte in the shard.
        size: Number of its bytes.
    """

    path: str
    label: int
    offset: int
    size: int


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Attributes:
        name: Its name in the folder of the shards.
        size: Number of its bytes.
        sha256: Its hash.
        paths: Of its images: what :class:`ShardImage` says, as columns, of which millions fit into memory.
        labels: Likewise.
        offsets: Likewise.
        sizes: Likewise.
    """

    name: str
    size: int
    sha256: str
    paths: Sequence[str]
    labels: Sequence[int]
    offsets: Sequence[int]
    sizes: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def images(self) -> Iterator[ShardImage]:
        """The images in their order."""
        return map(ShardImage, self.paths, self.labels, self.offsets, self.sizes)


@dataclass(frozen=True)
class ShardIndex:
    """The contents of a folder of shards.

    Attributes:
        classes: Names of the classes.
        folders: Folders of the classes in their order; empty if the labels came from a list.
        shards: The tar files.
    """

    classes: tuple[str, ...]
    folders: tuple[str, ...]
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def write(self, path: Path) -> None:
        # one line a shard, so that a person can look into it
        shards = ',\n'.join(json.dumps(vars(shard), separators=(',', ':')) for shard in self.shards)
        head = json.dumps(dict(format=_FORMAT, classes=self.classes, folders=self.folders), indent=1)
        path.write_text(f'{head[:-2]},\n "shards": [\n{shards}\n]}}\n')


def read_index(folder: str | Path) -> ShardIndex:
    """Read the index of a folder of shards, and compare it with the files.

    Raises:
        ShardError: If the index or a shard is missing, damaged, or of another size than the index says.
    """
    path = Path(folder, INDEX)
    if not path.is_file():
        raise ShardError(f'{path} does not exist; it is written by `write_shards`, after the last shard')
    try:
        index = _parse(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ShardError(
            f'{path} is not the index of shards that `write_shards` writes ({type(error).__name__}: {error})'
        ) from error
    for shard in index.shards:
        file = Path(folder, shard.name)
        if not file.is_file():
            raise ShardError(f'{file} is missing, and {INDEX} lists it; copy it there, or call `write_shards` again')
        if file.stat().st_size != shard.size:
            raise ShardError(
                f'{file} has {file.stat().st_size} bytes and must have {shard.size}: it is damaged or not the one of '
                f'{INDEX}; remove it, and call `write_shards` again'
            )
    return index


def _parse(content: Any) -> ShardIndex:
    if content['format'] != _FORMAT:
        raise ValueError(f'format must be {_FORMAT!r}, got {content["format"]!r}')
    classes, folders = (tuple(map(str, content[key])) for key in ('classes', 'folders'))
    return ShardIndex(classes, folders, tuple(_parse_shard(shard, len(classes)) for shard in content['shards']))


def _parse_shard(content: Any, num_classes: int) -> Shard:
    shard = Shard(**content)
    # a shard lies in the folder itself
    if os.path.basename(shard.name) != shard.name or not shard.name.endswith('.tar'):
        raise ValueError(f'{shard.name!r} is no name of a shard')
    columns = [shard.paths, shard.labels, shard.offsets, shard.sizes]
    types = [{type(value) for value in column} for column in ([shard.size], *columns)]
    if types != [{int}, {str}, {int}, {int}, {int}] or len(set(map(len, columns))) != 1:
        raise ValueError(f'{shard.name} must have a path, a label, an offset and a size for each image')
    for image in shard.images:
        if not (0 < image.size <= MAX_IMAGE_SIZE and 0 <= image.offset <= shard.size - image.size):
            raise ValueError(f'{image.path} lies outside {shard.name}')
        if not 0 <= image.label < num_classes:
            raise ValueError(f'{image.path} has the label {image.label}, and there are {num_classes} classes')
    return shard

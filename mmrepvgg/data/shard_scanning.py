"""Find the images in a shard by the headers of its members. Nothing is unpacked."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ..checkpoints.reading import hash_file
from .shard_index import MAX_IMAGE_SIZE, Shard, ShardError, ShardImage

_MAX_TEXT_SIZE = 2**16


def scan_shard(path: Path) -> Shard:
    """List the images in a shard, with their places and the hash of the file.

    Raises:
        ShardError: If the file is no shard that :func:`write_shards` writes, or is not whole.
    """
    try:
        with open(path, 'rb') as file, tarfile.open(fileobj=file, mode='r:') as tar:
            columns = [*zip(*_group(tar), strict=True)]
        return Shard(path.name, path.stat().st_size, hash_file(path), *columns)
    except (tarfile.TarError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ShardError(f'{path} is no shard of `write_shards`, or is damaged ({error})') from error


def _group(tar: tarfile.TarFile) -> Iterator[ShardImage]:
    while members := [member for member in (tar.next(), tar.next(), tar.next()) if member is not None]:
        tar.members = []  # type: ignore[attr-defined]  # the library would keep them all
        if not all(member.isreg() for member in members):
            raise ValueError('it has members that are not files')
        # the key ends at the first dot of the name, folders apart
        keys = [os.path.basename(member.name).partition('.') for member in members]
        if len(members) != 3 or len({key for key, _, _ in keys}) != 1:
            raise ValueError(f'{members[0].name} has not the three members of an image')
        # in the order of their endings
        parts = {
            suffix if suffix in ('cls', 'json') else 'image': m for (_, _, suffix), m in zip(keys, members, strict=True)
        }
        image = parts['image']
        if not 0 < image.size <= MAX_IMAGE_SIZE:
            raise ValueError(f'{image.name} has {image.size} bytes')
        label, info = _read_text(tar, parts['cls']), json.loads(_read_text(tar, parts['json']))
        yield ShardImage(str(info['path']), int(label), image.offset_data, image.size)


def _read_text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None or member.size > _MAX_TEXT_SIZE:
        raise ValueError(f'{member.name} has {member.size} bytes')
    return file.read()

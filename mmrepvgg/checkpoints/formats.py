"""The file formats in which weights come, told apart by their first bytes and not by the name of the file."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .mindspore import read_mindspore
from .paddle import read_paddle
from .reading import CheckpointError, load_file

# What torch.save wrote before torch 1.6: a pickled number, then pickles.
_LEGACY_TORCH = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
_RECORD = 'mmrepvgg'


def detect_format(path: Path) -> str:
    """``'torch'``, ``'safetensors'``, ``'mindspore'`` or ``'paddle'``.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is none of these.
    """
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if not path.is_file():
        raise CheckpointError(f'{path} must be a file, and is a folder')
    with path.open('rb') as file:
        start = file.read(32)
    # a Git LFS pointer is a matter for the reader of torch's files, which says how to fetch it
    if zipfile.is_zipfile(path) or start.startswith((b'PK\x03\x04', _LEGACY_TORCH, b'version https://git-lfs')):
        return 'torch'
    if start.startswith(b'\x80'):
        return 'paddle'
    # the length of a JSON header, and the header
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= path.stat().st_size:
        return 'safetensors'
    # field 1 of a message, whose own field 1 is the first tensor's name
    if start.startswith(b'\n'):
        return 'mindspore'
    raise CheckpointError(
        f'{path} must be a file of torch.save, safetensors, MindSpore (.ckpt) or Paddle (.pdparams), got one that '
        f'starts with {start[:8]!r}'
    )


def load_any(path: Path, file_format: str) -> Mapping[str, Any]:
    """Read a file of a format that :func:`detect_format` named.

    Raises:
        ModuleNotFoundError: If the format takes a package that is not installed.
        CheckpointError: If the file is damaged, or holds what may not be there.
    """
    readers = {'safetensors': _read_safetensors, 'mindspore': read_mindspore, 'paddle': read_paddle}
    content = readers.get(file_format, load_file)(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path} must hold a dict of weights, got {type(content).__name__}')
    return content


def save(content: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a checkpoint in the format of the file's suffix.

    Args:
        content: What a file of ``torch.save`` is to hold.
        weights: What a safetensors file is to hold; ``content['meta']['mmrepvgg']`` becomes its metadata.
        path: The file.
    """
    if path.suffix != '.safetensors':
        torch.save(content, path)
        return
    metadata = {'format': 'pt'}
    if record := content.get('meta', {}).get(_RECORD):
        metadata[_RECORD] = json.dumps(record)
    _import_safetensors(path).torch.save_file(dict(weights), path, metadata)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = _import_safetensors(path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f'{path} is damaged or incomplete: {error}') from error


def _import_safetensors(path: Path) -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is a safetensors file, and that takes a package: pip install safetensors'
        ) from error
    return safetensors

"""MindSpore's ``.ckpt``: a protobuf message, read by its published schema (mindspore/ccsrc/utils/checkpoint.proto).

message Checkpoint { repeated Value value = 1; }
message Value { required string tag = 1; required TensorProto tensor = 2; }
message TensorProto { repeated int64 dims = 1; required string tensor_type = 2; required bytes tensor_content = 3; }
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .numpy_stand_ins import is_shape
from .reading import as_checkpoint_errors

_DTYPES = {
    'Float16': torch.float16,
    'BFloat16': torch.bfloat16,
    'Float32': torch.float32,
    'Float64': torch.float64,
    'Int8': torch.int8,
    'UInt8': torch.uint8,
    'Int16': torch.int16,
    'Int32': torch.int32,
    'Int64': torch.int64,
    'Bool': torch.bool,
}
# MindSpore may append a checksum to the message: this mark and ten bytes.
_CRC_MARK, _CRC_SIZE = b'crc_num', 17
# The wire types of protobuf.
_VARINT, _BYTES = 0, 2
_MAX_PARTS = 100_000


class _Part(NamedTuple):
    dims: list[int]
    kind: str
    content: memoryview


def read_mindspore(path: Path) -> dict[str, Tensor]:
    """Read a file that ``mindspore.save_checkpoint`` wrote.

    Raises:
        CheckpointError: If the file is damaged or encrypted, or a tensor's type is unknown.
    """
    content = memoryview(path.read_bytes())
    if content[-_CRC_SIZE:][: len(_CRC_MARK)] == _CRC_MARK:
        content = content[:-_CRC_SIZE]
    parts: dict[str, list[_Part]] = {}
    with as_checkpoint_errors(path):
        for count, (_, value) in enumerate(_split(content)):
            if count == _MAX_PARTS:
                raise ValueError(f'it has more than {_MAX_PARTS:,} tensors')
            fields = _get_bytes(value, 1, 2)
            # tensors above 512 MB are cut into several values of the same name
            parts.setdefault(str(fields[1], 'utf-8'), []).append(_read_part(fields[2]))
        return {name: _to_tensor(name, found) for name, found in parts.items()}


def _read_part(message: memoryview) -> _Part:
    dims: list[int] = []
    for number, value in _split(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else _read_varints(value)
    fields = _get_bytes(message, 2, 3)
    return _Part(dims, str(fields[2], 'utf-8'), fields[3])


def _get_bytes(message: int | memoryview, *required: int) -> dict[int, memoryview]:
    if isinstance(message, int):
        raise ValueError('it has a number in place of a tensor')
    fields = {number: value for number, value in _split(message) if isinstance(value, memoryview)}
    if missing := [number for number in required if number not in fields]:
        raise ValueError(f'it has a tensor without field {missing[0]}')
    return fields


def _split(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: their numbers, and a whole number or bytes."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        if tag & 7 not in (_VARINT, _BYTES):
            raise ValueError(f'it is no message of MindSpore at byte {position}')
        value, position = _read_varint(message, position)
        if tag & 7 == _VARINT:
            yield tag >> 3, value
        else:
            if value > len(message) - position:
                raise ValueError('it ends within a tensor')
            yield tag >> 3, message[position : position + value]
            position += value


def _read_varints(message: memoryview) -> Iterator[int]:
    position = 0
    while position < len(message):
        value, position = _read_varint(message, position)
        yield value


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError('it has a number of more than ten bytes')


def _to_tensor(name: str, parts: list[_Part]) -> Tensor:
    dims, kind, _ = parts[0]
    if kind not in _DTYPES:
        raise ValueError(f'{name} must be of one of the types {", ".join(_DTYPES)}, got {kind[:40]}')
    shape = [] if dims == [0] else dims  # so it writes scalars
    if not is_shape(tuple(shape)):
        raise ValueError(f'{name} has an impossible shape')
    content = bytearray().join(part.content for part in parts)
    if len(content) != math.prod(shape) * _DTYPES[kind].itemsize:
        raise ValueError(f'{name} {tuple(shape)} of {kind} has {len(content)} bytes')
    if not content:
        return torch.empty(shape, dtype=_DTYPES[kind])
    return torch.frombuffer(content, dtype=_DTYPES[kind]).view(shape)

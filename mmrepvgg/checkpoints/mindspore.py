"""MindSpore's ``.ckpt``: a protobuf message, read by its published schema (mindspore/ccsrc/utils/checkpoint.proto).

message Checkpoint { repeated Value value = 1; }
message Value { required string tag = 1; required TensorProto tensor = 2; }
message TensorProto { repeated int64 dims = 1; required string tensor_type = 2; required bytes tensor_content = 3; }
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from .numpy_stand_ins import is_shape
from .protobuf import iterate_fields, read_varints
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
_MAX_PARTS, _MAX_FIELDS, _MAX_DIMS_SIZE = 100_000, 100, 320

# A message's fields by their numbers: whole numbers and bytes.
Fields = dict[int, list[int | memoryview]]


def read_mindspore(path: Path) -> dict[str, Tensor]:
    """Read a file that ``mindspore.save_checkpoint`` wrote.

    Raises:
        CheckpointError: If the file is damaged or encrypted, or a tensor's type is unknown.
    """
    content = memoryview(path.read_bytes())
    if content[-_CRC_SIZE:][: len(_CRC_MARK)] == _CRC_MARK:
        content = content[:-_CRC_SIZE]
    parts: dict[str, list[Fields]] = {}
    with as_checkpoint_errors(path):
        for count, (_, value) in enumerate(iterate_fields(content)):
            if count == _MAX_PARTS:
                raise ValueError(f'it has more than {_MAX_PARTS:,} tensors')
            fields = _read_fields(value)
            # tensors above 512 MB are cut into several values of the same name
            parts.setdefault(_get_text(fields, 1), []).append(_read_fields(_get_bytes(fields, 2)))
        return {name: _to_tensor(name, found) for name, found in parts.items()}


def _to_tensor(name: str, parts: list[Fields]) -> Tensor:
    kind = _get_text(parts[0], 2)
    if kind not in _DTYPES:
        raise ValueError(f'{name} must be of one of the types {", ".join(_DTYPES)}, got {kind[:40]}')
    shape: list[int] = []
    for value in parts[0].get(1, []):
        shape += [value] if isinstance(value, int) else read_varints(value[:_MAX_DIMS_SIZE])
    if shape == [0]:  # so it writes scalars
        shape = []
    content = bytearray().join(_get_bytes(part, 3) for part in parts)
    if not is_shape(tuple(shape)) or len(content) != math.prod(shape) * _DTYPES[kind].itemsize:
        raise ValueError(f'{name} {tuple(shape[:8])} of {kind} has {len(content)} bytes')
    if not content:
        return torch.empty(shape, dtype=_DTYPES[kind])
    return torch.frombuffer(content, dtype=_DTYPES[kind]).view(shape)


def _get_text(fields: Fields, number: int) -> str:
    return str(_get_bytes(fields, number), 'utf-8')


def _get_bytes(fields: Fields, number: int) -> memoryview:
    value = fields.get(number, [0])[-1]
    if isinstance(value, int):
        raise ValueError(f'it has a tensor without field {number}')
    return value


def _read_fields(message: int | memoryview) -> Fields:
    if isinstance(message, int):
        raise ValueError('it has a number in place of a tensor')
    fields: Fields = {}
    for count, (number, value) in enumerate(iterate_fields(message)):
        if count == _MAX_FIELDS:
            raise ValueError('it has a tensor of too many dimensions')
        fields.setdefault(number, []).append(value)
    return fields

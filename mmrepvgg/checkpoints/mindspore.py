"""MindSpore's ``.ckpt``: a protobuf message, read by its published schema (mindspore/ccsrc/utils/checkpoint.proto)."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .reading import CheckpointError

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
# message: its fields as name, number, label and type; a type that is no scalar is a message above it
_SCHEMA = {
    'TensorProto': (
        ('dims', 1, 'LABEL_REPEATED', 'TYPE_INT64'),
        ('tensor_type', 2, 'LABEL_REQUIRED', 'TYPE_STRING'),
        ('tensor_content', 3, 'LABEL_REQUIRED', 'TYPE_BYTES'),
    ),
    'Value': (
        ('tag', 1, 'LABEL_REQUIRED', 'TYPE_STRING'),
        ('tensor', 2, 'LABEL_REQUIRED', 'TensorProto'),
    ),
    'Checkpoint': (('value', 1, 'LABEL_REPEATED', 'Value'),),
}
# MindSpore may append a checksum to the message: this mark and ten bytes.
_CRC_MARK, _CRC_SIZE = b'crc_num', 17


def read_mindspore(path: Path) -> dict[str, Tensor]:
    """Read a file that ``mindspore.save_checkpoint`` wrote.

    Raises:
        ModuleNotFoundError: If protobuf is not installed.
        CheckpointError: If the file is damaged or encrypted, or a tensor's type is unknown.
    """
    message, decode_error = _make_message(path)
    content = path.read_bytes()
    if content[-_CRC_SIZE:].startswith(_CRC_MARK):
        content = content[:-_CRC_SIZE]
    try:
        message.ParseFromString(content)
    except decode_error as error:
        raise CheckpointError(f'{path} is damaged or incomplete: it is no MindSpore checkpoint: {error}') from error
    parts: dict[str, list[Any]] = {}
    for value in message.value:
        # tensors above 512 MB are cut into several values of the same name
        parts.setdefault(value.tag, []).append(value.tensor)
    return {name: _to_tensor(path, name, tensors) for name, tensors in parts.items()}


def _make_message(path: Path) -> tuple[Any, type[Exception]]:
    """An empty checkpoint, and what parsing it raises."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is a MindSpore checkpoint, and that takes a package: pip install protobuf'
        ) from error
    field = descriptor_pb2.FieldDescriptorProto
    schema = descriptor_pb2.FileDescriptorProto(name='mindspore_checkpoint.proto', package='mmrepvgg')
    for message_name, rows in _SCHEMA.items():
        message_type = schema.message_type.add(name=message_name)
        for name, number, label, kind in rows:
            row = message_type.field.add(name=name, number=number, label=label)
            if kind in _SCHEMA:
                row.type, row.type_name = field.TYPE_MESSAGE, f'.mmrepvgg.{kind}'
            else:
                row.type = field.Type.Value(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    descriptor = pool.FindMessageTypeByName('mmrepvgg.Checkpoint')
    return message_factory.GetMessageClass(descriptor)(), message.DecodeError


def _to_tensor(path: Path, name: str, parts: list[Any]) -> Tensor:
    kind, dims = parts[0].tensor_type, list(parts[0].dims)
    if kind not in _DTYPES:
        raise CheckpointError(f'{path}: {name} must be of one of the types {", ".join(_DTYPES)}, got {kind}')
    shape = [] if dims == [0] else dims  # so it writes scalars
    content = bytearray().join(part.tensor_content for part in parts)
    if any(size < 0 for size in shape) or len(content) != math.prod(shape) * _DTYPES[kind].itemsize:
        raise CheckpointError(f'{path} is damaged: {name} {tuple(shape)} of {kind} has {len(content)} bytes')
    if not content:
        return torch.empty(shape, dtype=_DTYPES[kind])
    return torch.frombuffer(content, dtype=_DTYPES[kind]).view(shape)

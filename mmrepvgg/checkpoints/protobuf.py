"""Protobuf's wire format, in which MindSpore's and ONNX's files are written. Imports no package of theirs."""

from collections.abc import Iterator

# Bytes of a field by its wire type, where the type says it.
_FIXED_SIZES = {1: 8, 5: 4}


def iterate_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: their numbers, and whole numbers or bytes.

    Raises:
        ValueError: If it is no message.
        IndexError: If it ends too early.
    """
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            yield tag >> 3, value
            continue
        size = _FIXED_SIZES.get(kind)
        if kind == 2:
            size, position = _read_varint(message, position)
        if size is None or size > len(message) - position:
            raise ValueError(f'it is no message of protobuf at byte {position}')
        yield tag >> 3, message[position : position + size]
        position += size


def read_varints(message: memoryview) -> Iterator[int]:
    """Whole numbers in a row."""
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

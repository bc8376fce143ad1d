"""The header of a safetensors file, read without its package. Imports no torch."""

import json
from pathlib import Path
from typing import Any

_MAX_HEADER = 100_000_000


def starts_as_safetensors(start: bytes) -> bool:
    """Whether the first bytes of a file are the length of a JSON header, and the header."""
    return start[8:9] == b'{'


def read_texts(path: Path) -> dict[str, Any] | None:
    """The texts beside the weights; None if there is no such file or no such header."""
    try:
        with path.open('rb') as file:
            start = file.read(9)
            if not starts_as_safetensors(start) or (length := int.from_bytes(start[:8], 'little')) > _MAX_HEADER:
                return None
            texts = json.loads(start[8:] + file.read(length - 1)).get('__metadata__', {})
    except (OSError, ValueError, RecursionError):
        return None
    return texts if isinstance(texts, dict) else None

"""The SHA-256 of a file in the file itself, for formats that have no checksum. Imports no torch.

The text ``OPEN_SEAL`` is stored in the file, where the format has room for a text. Its zeros stand for the hash while
the hash is computed. It finds damage. Who changes a file on purpose can write another hash.
"""

import hashlib
import re

# The name of the entry with the seal, where entries have names.
SEAL_ENTRY = 'mmrepvgg_sha256'
_ZEROS = 64 * '0'
OPEN_SEAL = f'SHA-256 {_ZEROS}'
_SEAL = re.compile(rb'SHA-256 ([0-9a-f]{64})')


def close_seal(content: bytes | bytearray, beside: bytes = b'') -> bytes:
    """Put the hash into a file.

    Args:
        content: The file, with ``OPEN_SEAL`` once in it.
        beside: Content of another file that is hashed, too.
    """
    (found,) = _SEAL.finditer(content)
    digest = _hash(content, found, beside).encode()
    return bytes(content[: found.start(1)]) + digest + bytes(content[found.end(1) :])


def check_seal(content: bytes, beside: bytes = b'') -> bool | None:
    """Whether a file has the hash that is in it; None if there is none in it."""
    found = _SEAL.search(content)
    return None if found is None else found[1].decode() == _hash(content, found, beside)


def _hash(content: bytes | bytearray, found: re.Match[bytes], beside: bytes) -> str:
    view = memoryview(content)
    digest = hashlib.sha256(view[: found.start(1)])
    for part in (_ZEROS.encode(), view[found.end(1) :], beside):
        digest.update(part)
    return digest.hexdigest()

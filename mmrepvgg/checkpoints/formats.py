"""The file formats in which weights come, told apart by their first bytes and not by the name of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .mindspore import read_mindspore
from .paddle import read_paddle
from .reading import Checkpoint, CheckpointError, load_file, read_checkpoint, require_file, take_weights
from .safetensors_files import read_safetensors
from .safetensors_header import starts_as_safetensors
from .torch_files import LEGACY_START, ZIP_START


def detect_format(path: Path) -> str:
    """``'torch'``, ``'safetensors'``, ``'mindspore'`` or ``'paddle'``.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is none of these.
    """
    require_file(path)
    with path.open('rb') as file:
        start = file.read(32)
    # a Git LFS pointer is a matter for the reader of torch's files, which says how to fetch it
    if start.startswith((ZIP_START, LEGACY_START, b'version https://git-lfs')):
        return 'torch'
    if start.startswith(b'\x80'):
        return 'paddle'
    # the length of a JSON header, and the header
    if starts_as_safetensors(start) and int.from_bytes(start[:8], 'little') <= path.stat().st_size:
        return 'safetensors'
    # field 1 of a message, whose own field 1 is the first tensor's name
    if start.startswith(b'\n'):
        return 'mindspore'
    raise CheckpointError(
        f'{path} must be a file of torch.save, safetensors, MindSpore (.ckpt) or Paddle (.pdparams), got one that '
        f'starts with {start[:8]!r}'
    )


def read_weights(path: str | Path, ema: bool = False) -> Checkpoint:
    """Read the weights for inference as :func:`read_checkpoint` does, or from a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If the file is of safetensors, and that is not installed.
        CheckpointError: If it is damaged, asks for what it can't have, or has no (EMA) weights.
    """
    path = Path(path)
    require_file(path)
    with path.open('rb') as file:
        start = file.read(9)
    if starts_as_safetensors(start):
        return take_weights(path, read_safetensors(path)[0], ema)
    return read_checkpoint(path, ema)


def load_any(path: Path, file_format: str) -> dict[Any, Any]:
    """Read a file of a format that :func:`detect_format` named.

    Raises:
        ModuleNotFoundError: If the format is safetensors, and that is not installed.
        CheckpointError: If the file is damaged, or holds what may not be there.
    """
    return _READERS[file_format](path)


_READERS: dict[str, Callable[[Path], dict[Any, Any]]] = {
    'torch': load_file,
    'safetensors': lambda path: read_safetensors(path)[0],
    'mindspore': read_mindspore,
    'paddle': read_paddle,
}

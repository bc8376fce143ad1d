"""safetensors: weights, and texts beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import CheckpointError
from .reading import as_checkpoint_errors
from .seals import OPEN_SEAL, SEAL_ENTRY, check_seal, close_seal


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a file, and its metadata.

    The format has no checksum. A file that :func:`write_safetensors` wrote has the SHA-256 of itself among its
    metadata, and is compared with it.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        CheckpointError: If the file is damaged.
    """
    safetensors = _import_safetensors(path)
    with as_checkpoint_errors(path), safetensors.safe_open(path, 'pt') as file:
        metadata = file.metadata() or {}
        if SEAL_ENTRY in metadata and not check_seal(path.read_bytes()):
            raise CheckpointError(f'{path} is damaged, or was changed: its content does not have the SHA-256 in it')
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118  # no mapping


def write_safetensors(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file with the mode of any new file.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
    """
    # save_file makes files that nobody but their owner may read
    content = _import_safetensors(path).torch.save(dict(weights), {'format': 'pt', **metadata, SEAL_ENTRY: OPEN_SEAL})
    path.write_bytes(close_seal(content))


def _import_safetensors(path: Path) -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is a safetensors file, and that takes a package: pip install safetensors'
        ) from error
    return safetensors

"""safetensors: weights, and texts beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .reading import as_checkpoint_errors


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a file, and its metadata.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        CheckpointError: If the file is damaged.
    """
    safetensors = _import_safetensors(path)
    with as_checkpoint_errors(path), safetensors.safe_open(path, 'pt') as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  # no mapping


def write_safetensors(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file with the mode of any new file.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
    """
    # save_file makes files that nobody but their owner may read
    path.write_bytes(_import_safetensors(path).torch.save(dict(weights), {'format': 'pt', **metadata}))


def _import_safetensors(path: Path) -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is a safetensors file, and that takes a package: pip install safetensors'
        ) from error
    return safetensors

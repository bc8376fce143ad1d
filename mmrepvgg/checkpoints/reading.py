"""The one place that opens checkpoint files. Nothing in a file is ever executed."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .entries import AVERAGING_COUNTERS, WHOLE_FILE, find_weights
from .errors import CheckpointError
from .numpy_stand_ins import Inert, StandInError
from .torch_files import LEGACY_START, ZIP_START, read_torch


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file and what it says about them.

    Attributes:
        path: The file.
        state_dict: Its tensors, without what DDP or torch.compile put in front of their names.
        meta: The plain data in its ``meta`` entry, empty if it has none.
        entry: Where in the file the weights were.
    """

    path: Path
    state_dict: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    entry: str = WHOLE_FILE

    @property
    def is_deploy_form(self) -> bool:
        """Whether it is one convolution a block, no batch norm inserted."""
        keys = list(self.state_dict)
        return any('branch_reparam.' in key for key in keys) and not any('deploy_norm.' in key for key in keys)


def read_checkpoint(path: str | Path, ema: bool = False) -> Checkpoint:
    """Read the weights from a Runner checkpoint, a plain state dict, or a file that wraps one.

    Args:
        path: A file written by ``torch.save``.
        ema: Take the exponential moving average of the weights.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, asks for what it can't have, or has no (EMA) weights.
    """
    return take_weights(Path(path), load_file(Path(path)), ema)


def take_weights(path: Path, content: Mapping[Any, Any], ema: bool = False) -> Checkpoint:
    """The weights in what a reader gave for a file.

    Raises:
        CheckpointError: If it has no (EMA) weights.
    """
    entry, weights, meta = find_weights(path, content, ema)
    tensors = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    if ema:
        tensors = {key: value for key, value in tensors.items() if key not in AVERAGING_COUNTERS}
    if not tensors:
        raise CheckpointError(f'{path} holds no weights in {entry}')
    return Checkpoint(path, tensors, meta, entry)


def load_file(path: Path, stand_ins: Mapping[str, Any] | None = None) -> dict[Any, Any]:
    """Load a file written by ``torch.save`` onto the CPU: tensors, plain data, and inert objects in place of others.

    Args:
        path: The file.
        stand_ins: See :func:`~mmrepvgg.checkpoints.torch_files.read_torch`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no such file, is damaged, or asks for what it can't have.
    """
    require_file(path)
    with path.open('rb') as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f'{path} is damaged or incomplete: it is empty')
    if start.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer, not the file; fetch it with: git lfs pull')
    if start[8:9] == b'{' or start.startswith(b'\x80\x04'):
        kind = 'a plain pickle, as Paddle writes it' if start.startswith(b'\x80') else 'a safetensors file'
        raise CheckpointError(f'{path} is {kind}; `convert_checkpoint` makes a checkpoint of its weights')
    if not start.startswith((ZIP_START, LEGACY_START)):
        raise CheckpointError(f'{path} is no file written by torch.save (it starts with {start[:8]!r})')
    with as_checkpoint_errors(path):
        content = read_torch(path, stand_ins)
        require_dict(path, content)
        return content


def require_file(path: Path) -> None:
    """Raise FileNotFoundError if there is nothing, and CheckpointError if there is a folder."""
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if not path.is_file():
        raise CheckpointError(f'{path} must be a file, and is a folder')


def require_dict(path: Path, content: Any) -> None:
    if isinstance(content, Inert):
        raise CheckpointError(
            f'{path} holds an object of {content.name}, which is not made here, and must hold a dict of weights; where '
            'it was made, save the state_dict() of the model'
        )
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} must hold a dict of weights, got {type(content).__name__}')


@contextmanager
def as_checkpoint_errors(path: Path) -> Iterator[None]:
    """Turn what a reader of ``path`` raises into a CheckpointError that names the file.

    Damaged files make libraries raise whatever they stumble over.
    """
    try:
        yield
    except (CheckpointError, ModuleNotFoundError):
        raise
    except StandInError as error:
        raise CheckpointError(
            f'{path} was refused, and nothing in it was run: {error}. A checkpoint may hold tensors and plain data '
            'only; save the weights alone where it was made'
        ) from error
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise CheckpointError(f'{path} is damaged or incomplete: {reason or type(error).__name__}') from error


def hash_file(path: str | Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

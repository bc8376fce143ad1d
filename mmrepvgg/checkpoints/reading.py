"""The one place that opens checkpoint files. Nothing in a file is ever executed."""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .safe_globals import allow_runner_checkpoints

# Where files keep their weights, in the order of preference.
_WEIGHT_ENTRIES = ('state_dict', 'model')
_EMA_ENTRIES = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')


class CheckpointError(ValueError):
    """A checkpoint that can't be used: says which file, why, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file and what it says about them.

    Attributes:
        path: The file.
        state_dict: Its tensors, without a DDP wrapper's ``module.`` in front of their names.
        meta: Its ``meta`` entry, empty if it has none.
        entry: Where in the file the weights were.
    """

    path: Path
    state_dict: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)
    entry: str = 'the file itself'

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
        CheckpointError: If it is damaged, holds anything but tensors and plain data, or has no (EMA) weights.
    """
    path = Path(path)
    content = load_file(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path} must hold a dict of weights, got {type(content).__name__}')
    entry, weights, meta = find_weights(path, content, ema)
    tensors = {str(key): value for key, value in weights.items() if isinstance(value, Tensor)}
    # the averaging wrapper's own counters
    if ema:
        tensors = {key: value for key, value in tensors.items() if key not in ('steps', 'n_averaged')}
    if not tensors:
        raise CheckpointError(f'{path} holds no weights in {entry}')
    if all(key.startswith('module.') for key in tensors):
        tensors = {key.removeprefix('module.'): value for key, value in tensors.items()}
    return Checkpoint(path, tensors, meta, entry)


def find_weights(path: Path, content: Mapping[str, Any], ema: bool) -> tuple[str, Mapping[str, Any], dict[str, Any]]:
    """Where in a file's content the (EMA) weights are, these as they stand there, and the file's ``meta``."""
    meta = dict(content['meta']) if isinstance(content.get('meta'), Mapping) else {}
    return *(_select_ema(path, content, meta) if ema else _select_weights(path, content)), meta


def load_file(path: Path) -> Any:
    """Load a file written by ``torch.save`` onto the CPU, tensors and plain data only."""
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if not path.is_file():
        raise CheckpointError(f'{path} must be a file, and is a folder')
    allow_runner_checkpoints()
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open('rb') as file:
            start = file.read(64)
        if start.startswith(b'version https://git-lfs'):
            raise CheckpointError(f'{path} is a Git LFS pointer, not the file; fetch it with: git lfs pull') from error
        if not zipfile.is_zipfile(path) and not start.startswith(b'\x80'):
            raise CheckpointError(f'{path} is no file written by torch.save (it starts with {start[:8]!r})') from error
        raise CheckpointError(
            f'{path} was refused, and nothing in it was run: {_find_reason(error)}. A checkpoint may hold tensors '
            'and plain data only; save it anew as a state dict: torch.save(model.state_dict(), ...)'
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OSError) as error:
        raise CheckpointError(f'{path} is damaged or incomplete: {_find_reason(error)}') from error


def hash_file(path: str | Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _select_weights(path: Path, content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    for entry in _WEIGHT_ENTRIES:
        if isinstance(content.get(entry), Mapping):
            return entry, content[entry]
    if any(isinstance(value, Tensor) for value in content.values()):
        return 'the file itself', content
    # a file that has only the average
    for entry in _EMA_ENTRIES:
        if isinstance(content.get(entry), Mapping):
            return entry, content[entry]
    raise CheckpointError(
        f'{path} holds no weights: expected tensors, or an entry {" or ".join(_WEIGHT_ENTRIES)}, '
        f'got {", ".join(map(str, content)) or "nothing"}'
    )


def _select_ema(path: Path, content: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    # mmengine's EMAHook saves the average as state_dict and the last iterate as ema_state_dict: they are swapped.
    if 'ema_state_dict' in content and 'mmengine_version' in meta:
        return 'state_dict', content['state_dict']
    for entry in _EMA_ENTRIES:
        if isinstance(content.get(entry), Mapping):
            return entry, content[entry]
    raise CheckpointError(
        f'{path} holds no EMA weights: expected an entry {" or ".join(_EMA_ENTRIES)}, '
        f'got {", ".join(list(map(str, content))[:8])}; leave out --ema'
    )


def _find_reason(error: Exception) -> str:
    """The reason alone: torch's message runs over many lines and advises to turn the protection off."""
    text = str(error)
    if match := re.search(r'GLOBAL ([\w.]+)', text):
        return f'it refers to {match[1]}, which could run code'
    if match := re.search(r'WeightsUnpickler error: (.+)', text):
        return match[1].strip()
    return re.split(r'[.\n]', text)[0].strip() or type(error).__name__

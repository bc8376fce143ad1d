"""The one place that opens checkpoint files. Nothing in a file is ever executed."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .numpy_stand_ins import StandInError
from .plain_meta import keep_plain
from .torch_files import LEGACY_START, ZIP_START, read_torch

# Where files keep their weights, in the order of preference.
_WEIGHT_ENTRIES = ('state_dict', 'model')
# What averaging adds to the weights.
AVERAGING_COUNTERS = ('steps', 'n_averaged')
# What DDP and torch.compile put in front of every weight's name.
_WRAPPER_PREFIXES = ('module.', '_orig_mod.')
_EMA_ENTRIES = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')


class CheckpointError(ValueError):
    """A checkpoint that can't be used: says which file, why, and what to do."""


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
    entry, weights, meta = find_weights(path, load_file(path), ema)
    tensors = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    if ema:
        tensors = {key: value for key, value in tensors.items() if key not in AVERAGING_COUNTERS}
    if not tensors:
        raise CheckpointError(f'{path} holds no weights in {entry}')
    return Checkpoint(path, tensors, meta, entry)


def find_weights(path: Path, content: Mapping[Any, Any], ema: bool) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Find the (EMA) weights in a file's content.

    Returns:
        Where they are; what is there, without a wrapper's prefix; and the plain data in the file's ``meta``.
    """
    meta = keep_plain(content['meta']) if isinstance(content.get('meta'), Mapping) else {}
    entry, weights = _select_ema(path, content, meta) if ema else _select_weights(path, content)
    require_dict(path, weights)
    return entry, _strip_wrappers({str(key): value for key, value in weights.items()}), meta


def load_file(path: Path) -> dict[Any, Any]:
    """Load a file written by ``torch.save`` onto the CPU: tensors and plain data only.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no such file, is damaged, or holds anything else.
    """
    require_file(path)
    with path.open('rb') as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f'{path} is damaged or incomplete: it is empty')
    if start.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer, not the file; fetch it with: git lfs pull')
    if not start.startswith((ZIP_START, LEGACY_START)):
        raise CheckpointError(f'{path} is no file written by torch.save (it starts with {start[:8]!r})')
    with as_checkpoint_errors(path):
        content = read_torch(path)
        require_dict(path, content)
        return content


def require_file(path: Path) -> None:
    """Raise FileNotFoundError if there is nothing, and CheckpointError if there is a folder."""
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if not path.is_file():
        raise CheckpointError(f'{path} must be a file, and is a folder')


def require_dict(path: Path, content: Any) -> None:
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


def list_keys(keys: Iterable[Any], limit: int = 20) -> str:
    """Some keys for a message, and how many more there are."""
    texts = [str(key) for key in keys]
    shown = [text[:200] if text.isprintable() else ascii(text[:200]) for text in texts[:limit]]
    return ', '.join(shown) + (f' and {len(texts) - limit} more' if len(texts) > limit else '')


def hash_file(path: str | Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _strip_wrappers(weights: dict[str, Any]) -> dict[str, Any]:
    # one may be in the other, either way
    for prefix in _WRAPPER_PREFIXES * 2:
        tensors = [key for key, value in weights.items() if isinstance(value, Tensor)]
        if all(key.startswith(prefix) or key in AVERAGING_COUNTERS for key in tensors):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _select_weights(path: Path, content: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]]:
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
        f'got {list_keys(content) or "nothing"}'
    )


def _select_ema(path: Path, content: Mapping[str, Any], meta: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]]:
    # mmengine's EMAHook saves the average as state_dict and the last iterate as ema_state_dict: they are swapped.
    if {'ema_state_dict', 'state_dict'} <= content.keys() and 'mmengine_version' in meta:
        return 'state_dict', content['state_dict']
    for entry in _EMA_ENTRIES:
        if isinstance(content.get(entry), Mapping):
            return entry, content[entry]
    raise CheckpointError(
        f'{path} holds no EMA weights: expected an entry {" or ".join(_EMA_ENTRIES)}, '
        f'got {list_keys(content)}; read it without `ema`'
    )

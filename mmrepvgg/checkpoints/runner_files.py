"""Checkpoints for mmengine's Runner, by the same reader as all others. ``torch.load`` has no part in it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor

from .entries import find_weights
from .errors import CheckpointError
from .numpy_stand_ins import Inert, PlainArray, StandInError
from .reading import as_checkpoint_errors, load_file
from .safe_globals import RUNNER_STAND_INS


@contextmanager
def reading_safely() -> Iterator[None]:
    """Let mmengine read files by :func:`load_from_local` inside the block, whatever asks it to load one."""
    former = CheckpointLoader._schemes['']
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    try:
        yield
    finally:
        CheckpointLoader.register_scheme('', former, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict[Any, Any]:
    """Read a file with what a training needs to go on: tensors on the CPU, plain data, and the histories of its log.

    Objects that are unknown are left out, with the entry or the tuple that they are in. The weights of a file that no
    Runner wrote are its ``state_dict``, wherever they were.

    Args:
        filename: The file.
        map_location: Not used. mmengine gives it, and copies what it takes to where it belongs.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged, asks for what it can't have, or has no weights.
    """
    path = Path(filename).expanduser()
    content = load_file(path, {**RUNNER_STAND_INS, 'collections.Counter': _make_counter})
    with as_checkpoint_errors(path):
        known: dict[Any, Any] = _drop_inert(content, {})
        meta = known.get('meta')
        if not (isinstance(meta, Mapping) and 'mmengine_version' in meta):
            entry, known['state_dict'], _ = find_weights(path, content, ema=False)
            if not any(isinstance(value, Tensor) for value in known['state_dict'].values()):
                raise CheckpointError(f'{path} holds no weights in {entry}')
        return known


def _make_counter(counts: Any = None) -> Counter[Any]:
    """Stands in for ``Counter``, in which schedules keep their milestones."""
    if not isinstance(counts, dict) or not all(type(count) is int for count in counts.values()):
        raise StandInError('a Counter must have whole numbers')
    return Counter(counts)


_DROPPED = object()


def _drop_inert(node: Any, done: dict[int, Any]) -> Any:
    """Copy lists, tuples and dicts without what is inert. What is in several places is copied once."""
    if isinstance(node, Inert) or (isinstance(node, PlainArray) and node.is_inert):
        return _DROPPED
    if type(node) not in (dict, list, tuple):
        return node
    if id(node) in done:
        return done[id(node)]
    if isinstance(node, tuple):
        items = tuple(_drop_inert(item, done) for item in node)
        done[id(node)] = _DROPPED if any(item is _DROPPED for item in items) else items
        return done[id(node)]
    copied: Any = {} if isinstance(node, dict) else []
    done[id(node)] = copied
    if isinstance(node, dict):
        pairs = ((key, _drop_inert(value, done)) for key, value in node.items())
        copied.update((key, value) for key, value in pairs if value is not _DROPPED)
    else:
        items = tuple(_drop_inert(item, done) for item in node)
        copied.extend(item for item in items if item is not _DROPPED)
    return copied

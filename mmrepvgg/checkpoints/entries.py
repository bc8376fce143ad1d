"""Where in a file the weights are, and under which names: as trainings, wrappers and averaging leave them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import CheckpointError, list_keys
from .numpy_stand_ins import Inert
from .plain_meta import keep_plain

# Where files keep their weights, in the order of preference.
_WEIGHT_ENTRIES = ('state_dict', 'model')
_EMA_ENTRIES = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')
# Entries with tensors that are no weights.
_TRAINING_ENTRIES = ('optimizer', 'optim', 'param_scheduler', 'scheduler', 'message_hub')
# What averaging adds to the weights.
AVERAGING_COUNTERS = ('steps', 'n_averaged')
# What DDP, torch.compile, FSDP, DataParallel in a trainer, and Lightning put in front of every weight's name.
WRAPPERS = ('module.', '_orig_mod.', '_fsdp_wrapped_module.', 'model.')
_MAX_WRAPPERS = 4
_MAX_NETWORKS, _MAX_NAME = 8, 80
# The average of mmcv's EMAHook, in the same dict as the weights: ema_backbone_stem_... for backbone.stem....
_MMCV_AVERAGE = 'ema_'
WHOLE_FILE = 'the file itself'


def find_weights(
    path: Path, content: Mapping[Any, Any], ema: bool, part: str | None = None
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Find the (EMA) weights in a file's content.

    Args:
        path: The file, for messages.
        content: What a reader gave.
        ema: Take the averaged weights.
        part: Name of one network of several: an entry of the file, or what its keys begin with.

    Returns:
        Where they are; what is there, without a wrapper's prefix; and the plain data in the file's ``meta``.

    Raises:
        CheckpointError: If there are none, if there are several, or if one is no dense tensor.
    """
    meta = keep_plain(content['meta']) if isinstance(content.get('meta'), Mapping) else {}
    if part is not None and _holds_tensors(content.get(part)):
        entry, weights = part, content[part]
        part = None
    else:
        entry, weights = _select_ema(path, content, meta) if ema else _select_weights(path, content)
    for key, value in weights.items():
        if isinstance(value, Inert) and (entry != WHOLE_FILE or value.name.startswith('torch._')):
            raise CheckpointError(
                f'{path}: {str(key)[:200]} in {entry} is made by {value.name}, and must be a dense tensor; save it as '
                'one where it was made'
            )
    named = _strip_wrappers(_drop_mmcv_average({str(key): value for key, value in weights.items()}))
    return entry, _take_part(path, named, part), meta


def explain_prefix(keys: list[str]) -> str:
    """A hint for an error about keys that nobody knows, if all begin alike or are of several networks; else empty."""
    tails: dict[str, set[str]] = {}
    for key in keys:
        start, dot, tail = key.partition('.')
        if dot:
            tails.setdefault(start, set()).add(tail)
    starts = sorted(tails)[:_MAX_NETWORKS]
    if any(len(start) > _MAX_NAME for start in starts):
        return ''
    if len(tails) == 1 and starts != ['backbone']:
        return f'; all keys begin with {starts[0]}: `convert_checkpoint` takes it off with `part={starts[0]}`'
    if 1 < len(tails) <= _MAX_NETWORKS and tails[starts[0]] & tails[starts[1]]:
        return (
            f'; there are several networks ({", ".join(starts)}): name one, as in `convert_checkpoint` with '
            f'`part={starts[0]}`'
        )
    return ''


def _take_part(path: Path, weights: dict[str, Any], part: str | None) -> dict[str, Any]:
    if part is None:
        return weights
    prefix = f'{part.rstrip(".")}.'
    taken = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if not taken:
        starts = sorted({key.partition('.')[0] for key in weights})
        raise CheckpointError(
            f'{path} has no entry {part} and no keys that begin with {prefix}, got {list_keys(starts)}'
        )
    return _strip_wrappers(taken)


def _strip_wrappers(weights: dict[str, Any]) -> dict[str, Any]:
    tensors = [key for key, value in weights.items() if isinstance(value, Tensor) and key not in AVERAGING_COUNTERS]
    # one may be in another, in any order
    for prefix in WRAPPERS * _MAX_WRAPPERS:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = [key.removeprefix(prefix) for key in tensors]
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _drop_mmcv_average(weights: dict[str, Any]) -> dict[str, Any]:
    averages = {_MMCV_AVERAGE + str(key).replace('.', '_') for key in weights}
    return {key: value for key, value in weights.items() if key not in averages}


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Tensor) for each in value.values())


def _select_weights(path: Path, content: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]]:
    for entry in _WEIGHT_ENTRIES:
        if isinstance(content.get(entry), Mapping):
            return entry, content[entry]
    if _holds_tensors(content):
        return WHOLE_FILE, content
    # a file that has only the average, or weights under a name of its own
    for entry in _EMA_ENTRIES:
        if isinstance(content.get(entry), Mapping):
            return entry, content[entry]
    others = [str(key) for key, value in content.items() if _holds_tensors(value) and key not in _TRAINING_ENTRIES]
    if len(others) == 1:
        return others[0], content[others[0]]
    if others:
        raise CheckpointError(
            f'{path} holds weights in several entries ({list_keys(others)}); name one, as in `convert_checkpoint` with '
            f'`part={others[0]}`'
        )
    if modules := [f'{key} ({value.name})' for key, value in content.items() if isinstance(value, Inert)]:
        raise CheckpointError(
            f'{path} holds no weights but objects, which are not made here: {list_keys(modules)}; where it was made, '
            'save the state_dict() of the model'
        )
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
    # mmcv's swaps them at the end of an epoch, too
    weights = content.get('state_dict')
    if isinstance(weights, Mapping) and len(_drop_mmcv_average(dict(weights))) < len(weights):
        return 'state_dict', weights
    raise CheckpointError(
        f'{path} holds no EMA weights: expected an entry {" or ".join(_EMA_ENTRIES)}, '
        f'got {list_keys(content)}; read it without `ema`'
    )

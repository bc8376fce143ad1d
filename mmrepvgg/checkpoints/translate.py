"""State dicts from one system's keys to another's: every key is mapped, dropped by a named rule, or an error."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .entries import AVERAGING_COUNTERS, explain_prefix
from .errors import CheckpointError, list_keys
from .keymaps import BLOCK_MODULES, OTHER_MODULES, SYSTEMS, UNSERVED, DropRule, Place, System

NOT_A_TENSOR = 'no tensor'
COUNTERS = DropRule('counters of an averaged model', AVERAGING_COUNTERS)


@dataclass(frozen=True)
class Recognition:
    """Which system a state dict is from.

    Attributes:
        system: Its name in ``SYSTEMS``.
        reason: Why.
    """

    system: str
    reason: str


_NETWORK = Place('', '')  # outside of the blocks, names are whole


class _Target(NamedTuple):
    key: str
    transpose: bool


class KeyMap:
    """Translates keys between a system and this project, in one direction.

    Args:
        system: The system.
        inverse: From this project's keys to the system's, and not the other way.
    """

    def __init__(self, system: System, inverse: bool = False):
        self._inverse = inverse
        blocks = _list_tensors(system, system.block_modules, BLOCK_MODULES, inverse)
        others = _list_tensors(system, system.other_modules, OTHER_MODULES, inverse)
        self._rows = [(self._compile(place), place, blocks) for place in system.blocks]
        self._rows.append((self._compile(_NETWORK), _NETWORK, others))

    def translate(self, key: str) -> _Target | None:
        """The key on the other side, and whether its tensor is transposed there; None if no rule has it."""
        for pattern, place, tensors in self._rows:
            match = pattern.fullmatch(key)
            if match is None or match['tensor'] not in tensors:
                continue
            found = [int(number) for number in match.groups()[:-1]]
            shifts = place.shift or (0,) * len(found)
            shifted = [
                number + (-shift if self._inverse else shift) for number, shift in zip(found, shifts, strict=True)
            ]
            ours = found if self._inverse else shifted
            if min(shifted, default=0) < 0 or (place.blocks is not None and ours[-1] not in place.blocks):
                continue
            prefix = (place.theirs if self._inverse else place.ours).format(*shifted)
            tensor, transpose = tensors[match['tensor']]
            return _Target(f'{prefix}.{tensor}' if prefix else tensor, transpose)
        return None

    def _compile(self, place: Place) -> re.Pattern[str]:
        prefix = place.ours if self._inverse else place.theirs
        # no leading zeros, so that no two keys have the same numbers
        pattern = re.escape(prefix).replace(r'\{\}', '(0|[1-9][0-9]{0,3})')
        return re.compile(rf'{pattern}{re.escape(".") if prefix else ""}(?P<tensor>.+)')


def recognise(keys: Iterable[str], file_format: str) -> Recognition:
    """Find the system to which the keys belong.

    Args:
        keys: Those of a state dict.
        file_format: Of the file that it is from; decides between systems with the same keys.

    Raises:
        CheckpointError: If no system has any of them.
    """
    keys = list(keys)
    known = {name: _select_known(keys, system) for name, system in SYSTEMS.items()}
    best = max(map(len, known.values()))
    for pattern, title in UNSERVED.items():
        if found := [key for key in keys if re.search(pattern, key)]:
            raise CheckpointError(
                f'the weights are of {title} (they have {found[0][:200]}), which is not supported here'
            )
    if best == 0:
        raise CheckpointError(
            f'no system is known with such keys: {list_keys(keys)}; expected the weights of a RepVGG from one of '
            f'{", ".join(SYSTEMS)}{explain_prefix(keys)}'
        )
    fitting = [name for name in known if len(known[name]) == best]
    native = [name for name in fitting if SYSTEMS[name].file_format == file_format]
    name = (native or fitting)[0]
    reason = f'{best} of {len(keys)} keys are as in {SYSTEMS[name].title}, for example {known[name][0]}'
    # the same table under two names is no second possibility
    if others := [other for other in fitting if SYSTEMS[other] is not SYSTEMS[name]]:
        preferred = f'a {file_format} file' if native else 'taken first'
        reason += f'; {", ".join(others)} would fit, too ({name}: {preferred})'
    return Recognition(name, reason)


def explain_keys(keys: Iterable[str]) -> str:
    """What the keys of a state dict are, for an error that says that they do not fit a model; empty if they are ours.

    Args:
        keys: Those of a state dict.
    """
    keys = list(keys)
    for pattern, title in UNSERVED.items():
        if any(re.search(pattern, key) for key in keys):
            return f'; the weights are of {title}, which is not supported here'
    counts = {name: len(_select_known(keys, system)) for name, system in SYSTEMS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] > counts['mmrepvgg'] and counts[best] > len(keys) // 2:
        return f'; its keys are as in {SYSTEMS[best].title}: `convert_checkpoint` makes a checkpoint of them'
    return '' if counts['mmrepvgg'] else explain_prefix(keys)


def to_ours(weights: Mapping[str, Any], system: str) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Translate a system's state dict to this project's keys.

    Args:
        weights: A state dict; entries that are no tensors may be among it.
        system: A name in ``SYSTEMS``.

    Returns:
        The state dict, and the keys that were dropped by the name of the rule that says so.

    Raises:
        CheckpointError: If there is a key that no rule has, or two keys become one.
    """
    rules = (*SYSTEMS[system].dropped, COUNTERS)
    dropped: dict[str, list[str]] = {}
    tensors: dict[str, Tensor] = {}
    for key, value in weights.items():
        rule = next((rule.name for rule in rules if rule.covers(key)), None)
        if rule is None and not isinstance(value, Tensor):
            rule = NOT_A_TENSOR
        if rule is None:
            tensors[key] = value
        else:
            dropped.setdefault(rule, []).append(key)
    return _apply(KeyMap(SYSTEMS[system]), tensors, lambda: _explain_misfit(tensors, system)), dropped


def from_ours(weights: Mapping[str, Tensor], system: str) -> dict[str, Tensor]:
    """Translate a state dict with this project's keys to a system's.

    Raises:
        CheckpointError: If there is a key for which the system has no place.
    """
    explain = f'have no place in {SYSTEMS[system].title}'
    return _apply(KeyMap(SYSTEMS[system], inverse=True), weights, lambda: explain)


def _apply(keymap: KeyMap, weights: Mapping[str, Tensor], explain: Callable[[], str]) -> dict[str, Tensor]:
    targets = {key: keymap.translate(key) for key in weights}
    if unknown := [key for key, target in targets.items() if target is None]:
        raise CheckpointError(f'{len(unknown)} of {len(weights)} keys {explain()}: {list_keys(unknown)}')
    translated: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for key, target in targets.items():
        assert target is not None
        if target.key in translated:
            raise CheckpointError(
                f'{origins[target.key]} and {key} are both {target.key}; the file mixes two layouts: take one out'
            )
        translated[target.key] = weights[key].t() if target.transpose and weights[key].dim() == 2 else weights[key]
        origins[target.key] = key
    return translated


def _explain_misfit(keys: Iterable[str], system: str) -> str:
    keys = list(keys)
    counts = {name: len(_select_known(keys, other)) for name, other in SYSTEMS.items()}
    best = max(counts, key=lambda name: counts[name])
    better = f'; {counts[best]} are as in {SYSTEMS[best].title}: give `system={best}`'
    return f'are none of {SYSTEMS[system].title}{better if counts[best] > counts[system] else ""}'


def _list_tensors(
    system: System, modules: Mapping[str, str], tensors: Mapping[str, tuple[str, ...]], inverse: bool
) -> dict[str, tuple[str, bool]]:
    """Tensor on this side -> tensor on the other side, and whether it is transposed."""
    table: dict[str, tuple[str, bool]] = {}
    for ours, theirs in modules.items():
        is_norm = 'running_mean' in tensors[ours]
        for tensor in tensors[ours]:
            name = system.norm.get(tensor) if is_norm else tensor
            if name is None:
                continue
            pair = f'{ours}.{tensor}', f'{theirs}.{name}'
            source, target = pair if inverse else pair[::-1]
            table[source] = target, ours in system.transposed and tensor == 'weight'
    return table


def _select_known(keys: Iterable[str], system: System) -> list[str]:
    keymap = KeyMap(system)
    return [key for key in keys if keymap.translate(key) or any(rule.covers(key) for rule in system.dropped)]

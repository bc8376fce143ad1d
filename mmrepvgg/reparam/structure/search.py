"""Find what in a graph one convolution computes: chains of layers, and parallel branches from one tensor to one sum."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .algebra import InexactError, add, chain
from .making import make_even
from .maps import LAYER_MAPS, AffineMap, ConvMap, Scaling, to_meta
from .steps import Constant, Step


@dataclass(frozen=True, eq=False)
class Path:
    """A value as a linear function of an earlier value.

    Attributes:
        source: The step of the earlier value.
        map: The map, without numbers; or why it is none that a convolution computes.
        members: The steps that the map stands for.
        num_weights: Number of weights of the layers among them.
    """

    source: Step
    map: AffineMap | str
    members: frozenset[Step] = frozenset()
    num_weights: int = 0

    @property
    def has_conv(self) -> bool:
        return any(each.is_conv for each in self.members)


@dataclass
class Findings:
    """What was found in a graph.

    Attributes:
        patterns: The steps that one convolution can compute, each with its path.
        branches: Sums of parallel linear branches that are left, each with the reason.
        layers: Other linear layers that are left, each with the reason.
    """

    patterns: dict[Step, Path] = field(default_factory=dict)
    branches: dict[Step, str] = field(default_factory=dict)
    layers: dict[Step, str] = field(default_factory=dict)


def search(steps: Sequence[Step], blocked: Mapping[Step, str] | None = None) -> Findings:
    """Find the largest patterns of a graph. Only the structure decides, and no number in the weights.

    Args:
        steps: All steps, in the order in which they are computed. Those that nobody uses are its outputs.
        blocked: Steps that no convolution may compute, each with the reason; an empty one is not told.
    """
    return _Search(steps, blocked or {}).choose()


def list_candidates(steps: Sequence[Step]) -> Iterator[tuple[Step, Path]]:
    """All that one convolution can compute, whether there is something larger or not."""
    for step, paths in _Search(steps, {}).paths.items():
        for path in paths:
            if find_obstacle(step, path) is None:
                yield step, trim(path)


def compute_map(path: Path, end: Step, steps: Sequence[Step]) -> AffineMap:
    """The numbers of a pattern.

    Args:
        path: The pattern.
        end: The step whose value it computes.
        steps: All steps of the graph, in its order.
    """
    maps: dict[Step, AffineMap] = {path.source: Scaling()}
    for step in steps:
        if step not in path.members:
            continue
        if isinstance(step.does, float):
            one, other = (maps[each] for each in step.inputs)
            maps[step] = add(one, chain(other, Scaling(step.does)))
        else:
            earlier = maps[step.inputs[0]]
            described = step.describe(earlier, step.load())
            # the whole path tells the number of axes, which what stands before a layer may not
            maps[step] = chain(earlier, next(each for each in described if have_same_axes(path.map, each)))
    return maps[end]


class _Search:
    def __init__(self, steps: Sequence[Step], blocked: Mapping[Step, str]):
        self.steps, self.blocked = steps, blocked
        self.paths: dict[Step, list[Path]] = {}
        self.findings = Findings()
        for step in steps:
            kept: dict[Any, Path] = {}
            for path in sorted(self._find_paths(step), key=lambda path: -len(path.members)):  # the longest first
                # one from each source; where the number of axes is not known, one for each of them
                kept.setdefault((path.source, getattr(path.map, 'num_axes', None)), path)
            self.paths[step] = [*kept.values(), Path(step, Scaling())]

    def _find_paths(self, step: Step) -> Iterator[Path]:
        if step.reason is not None:
            if step.has_numbers:  # that a pooling stays is nothing to tell
                self.findings.layers[step] = step.reason
            if step.is_linear:
                yield from self._follow(step, step.reason)
        elif isinstance(step.does, float):
            yield from self._find_sums(step, *step.inputs, sign=step.does)
        elif step.does is not None:
            yield from self._find_chains(step)

    def _follow(self, step: Step, reason: str) -> Iterator[Path]:
        """The paths on which the step lies, which are no convolution because of ``reason``."""
        for path in self.paths[step.inputs[0]]:
            yield Path(path.source, reason, path.members | {step}, path.num_weights)

    def _find_chains(self, step: Step) -> Iterator[Path]:
        for path in self.paths[step.inputs[0]]:
            members = path.members | {step}
            if isinstance(path.map, str):
                yield Path(path.source, path.map, members)
                continue
            for each in step.describe(path.map, step.does):
                if not have_same_axes(path.map, each) or (step.is_reshape and not _has_no_axes(path.map)):
                    continue
                own = 0 if isinstance(step.does, Constant) or not isinstance(each, LAYER_MAPS) else each.num_weights
                try:
                    joined: AffineMap | str = chain(path.map, to_meta(each))
                except InexactError as error:
                    joined = str(error)
                    if not step.is_conv:  # that a convolution follows another one is nothing to tell
                        self.findings.layers.setdefault(step, joined)
                yield Path(path.source, joined, members, path.num_weights + own)

    def _find_sums(self, step: Step, one: Step, other: Step, *, sign: float) -> Iterator[Path]:
        for first in self.paths[one]:
            for second in self.paths[other]:
                if first.source is not second.source or not have_same_axes(first.map, second.map):
                    continue
                members = first.members | second.members | {step}
                joined = _join(first.map, second.map, sign)
                yield Path(first.source, joined, members, first.num_weights + second.num_weights)

    def choose(self) -> Findings:
        """Keep the paths whose values are needed, from the outputs backwards."""
        needed = [step for step in self.steps if not step.users]
        seen = set(needed)
        while needed:
            step = needed.pop()
            path = self._choose_path(step)
            if path is not None:
                self.findings.patterns[step] = path
            elif step in self.blocked:
                left = self.findings.branches if isinstance(step.does, float) else self.findings.layers
                left |= {step: self.blocked[step]} if self.blocked[step] else {}
            elif isinstance(step.does, float):
                self._explain(step)
            elif step.has_numbers and not step.is_conv:
                for path_before in self.paths[step]:
                    if isinstance(path_before.map, str) and path_before.has_conv:
                        self.findings.layers.setdefault(step, path_before.map)
            for each in [path.source] if path else step.inputs:
                if each not in seen:
                    seen.add(each)
                    needed.append(each)
        done = {member for path in self.findings.patterns.values() for member in path.members}
        self.findings.layers = {step: reason for step, reason in self.findings.layers.items() if step not in done}
        return self.findings

    def _choose_path(self, step: Step) -> Path | None:
        gains = self._find_gains(step)
        # a norm goes to what is before it rather than to what is behind it
        first = (path for path in gains if not self._takes_norm(path.source))
        return next(first, gains[0] if gains else None)

    def _find_gains(self, step: Step) -> list[Path]:
        if step.is_nothing or step in self.blocked:
            return []
        return [trim(path) for path in self.paths[step] if find_obstacle(step, path) is None]

    def _takes_norm(self, step: Step) -> bool:
        """Whether ``step`` is, or becomes, a convolution whose value nobody else needs."""
        return len(step.users) == 1 and (step.is_conv or bool(self._find_gains(step)))

    def _explain(self, step: Step) -> None:
        """Say why a sum is left, if parallel linear branches lead to it."""
        found = next((path for path in reversed(self.paths[step]) if path.has_conv), None)
        if found is not None:
            self.findings.branches[step] = find_obstacle(step, found) or 'it has no convolution of its own'
            return
        sources: set[Step] = set()
        for term in self._list_terms(step):
            own = {path.source for path in self.paths[term] if path.has_conv}
            if own & sources:
                self.findings.branches[step] = 'a term of the sum that is not linear stands between linear ones'
                return
            sources |= own

    def _list_terms(self, step: Step) -> list[Step]:
        """What a sum adds, if sums within are only added to."""
        if not isinstance(step.does, float) or step in self.findings.patterns:
            return [step]
        return [term for each in step.inputs for term in (self._list_terms(each) if len(each.users) == 1 else [each])]


def have_same_axes(one: AffineMap | str, other: AffineMap | str) -> bool:
    """Whether two maps are for the same number of axes, as far as that is known."""
    if isinstance(one, LAYER_MAPS) and isinstance(other, LAYER_MAPS):
        return one.num_axes == other.num_axes
    return True


def _join(one: AffineMap | str, other: AffineMap | str, sign: float) -> AffineMap | str:
    if isinstance(one, str) or isinstance(other, str):
        return one if isinstance(one, str) else other
    try:
        return add(one, chain(other, Scaling(sign)))
    except InexactError as error:
        return str(error)


def find_obstacle(step: Step, path: Path) -> str | None:
    """Why one convolution can't take the place of ``path``, or should not; None if it can."""
    if isinstance(path.map, str):
        return path.map
    if not isinstance(path.map, LAYER_MAPS) or not path.has_conv:
        return 'no convolution is among the layers'
    if sum(not (each.is_nothing or each.is_reshape) for each in path.members) < 2:
        return 'it is one layer already'
    if path.map.num_weights > path.num_weights:
        return f'one convolution would have more weights ({path.map.num_weights:,} instead of {path.num_weights:,})'
    for each in path.members - {step}:
        others = [user for user in each.users if user not in path.members]
        if others and not (all(each in user.asks_shape for user in others) and _keeps_shape(each, path)):
            return f'a value within is used elsewhere, too (by {others[0].name})'
    if _is_overwritten(path):
        return 'a value that it takes is overwritten meanwhile'
    if any(each.is_reshape for each in path.members) and not all(
        each.is_call or each.is_reshape for each in path.members
    ):
        return 'axes are joined within'
    try:
        if isinstance(path.map, ConvMap):
            make_even(path.map)
    except InexactError as error:
        return str(error)
    return None


def _is_overwritten(path: Path) -> bool:
    """Whether the steps of a path read different values under one name, or overwrite what is not their own.

    The one convolution of a sum reads the source where the first of its branches did. That of layers that follow each
    other stands in the place of any of them.
    """
    has_sum = any(isinstance(each.does, float) for each in path.members)
    for value in (path.source, *path.members):
        reads = [user.order for user in value.users if user in path.members]
        if value is path.source and not has_sum:
            reads += [each.order for each in path.members]
        if reads and any(min(reads) <= order < max(reads) for order in value.written_at):
            return True
    return not path.source.written_at.isdisjoint(each.order for each in path.members)


def _has_no_axes(one: AffineMap) -> bool:
    return isinstance(one, LAYER_MAPS) and one.num_axes == 0


def _keeps_shape(step: Step, path: Path) -> bool:
    """Whether what the path does behind ``step`` leaves the shape of its value, and no code changes."""
    if not all(each.is_call or each.is_reshape for each in path.members):
        return False
    behind = [user for user in step.users if user in path.members]
    return all(_is_scale(user) and _keeps_shape(user, path) for user in behind)


def _is_scale(step: Step) -> bool:
    """Whether a layer is a batch norm, or does nothing."""
    maps = step.does if isinstance(step.does, list) else []
    return all(isinstance(each, Scaling) or (isinstance(each, ConvMap) and each.is_channel_scale) for each in maps)


def trim(path: Path) -> Path:
    """The path without the steps at its beginning that do nothing."""
    while True:
        readers = [each for each in path.source.users if each in path.members]
        if len(readers) != 1 or not readers[0].is_nothing:
            return path
        path = replace(path, source=readers[0], members=path.members - {readers[0]})

"""Find what in a graph one convolution computes: chains of layers, and parallel paths from one tensor to one sum."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from .maps import AffineMap, ConvMap, InexactError, Scaling, add, chain
from .steps import Constant, Step


@dataclass(frozen=True, eq=False)
class Path:
    """A value as a map of an earlier value.

    Attributes:
        source: The step of the earlier value.
        map: The map.
        members: The steps that the map stands for.
        num_weights: Number of weights of the layers among them.
    """

    source: Step
    map: AffineMap
    members: frozenset[Step] = frozenset()
    num_weights: int = 0


@dataclass
class Findings:
    """What was found in a graph.

    Attributes:
        patterns: The steps that one convolution can compute, each with its path.
        reasons: Why something linear is left, for the steps at which it ends.
    """

    patterns: dict[Step, Path] = field(default_factory=dict)
    reasons: dict[Step, str] = field(default_factory=dict)


def search(steps: Sequence[Step]) -> Findings:
    """Find the largest patterns of a graph.

    Args:
        steps: All steps, in the order in which they are computed. Those that nobody uses are its outputs.
    """
    search = _Search(steps)
    return search.choose()


class _Search:
    def __init__(self, steps: Sequence[Step]):
        self.steps = steps
        self.paths: dict[Step, list[Path]] = {}
        self.findings = Findings()
        for step in steps:
            found = sorted(self._find_paths(step), key=lambda path: -len(path.members))  # the longest first
            self.paths[step] = [*found, Path(step, Scaling())]

    def _find_paths(self, step: Step) -> Iterator[Path]:
        if step.reason is not None:
            self.findings.reasons[step] = step.reason
        elif isinstance(step.does, float):
            yield from self._find_sums(step, *step.inputs, sign=step.does)
        elif step.does is not None:
            yield from self._find_chains(step, step.does)

    def _find_chains(self, step: Step, does: list[AffineMap] | Constant) -> Iterator[Path]:
        for path in self.paths[step.inputs[0]]:
            described = [does.describe(path.map)] if isinstance(does, Constant) else does
            for each in described:
                if each is None or not _have_same_axes(path.map, each):
                    continue
                try:
                    joined = chain(path.map, each)
                except InexactError as error:
                    self.findings.reasons.setdefault(step, str(error))
                    continue
                own = each.num_weights if isinstance(each, ConvMap) and not isinstance(does, Constant) else 0
                yield Path(path.source, joined, path.members | {step}, path.num_weights + own)

    def _find_sums(self, step: Step, one: Step, other: Step, *, sign: float) -> Iterator[Path]:
        for first in self.paths[one]:
            for second in self.paths[other]:
                if first.source is not second.source:
                    continue
                try:
                    joined = add(first.map, chain(second.map, Scaling(sign)))
                except InexactError as error:
                    if first.members or second.members:
                        self.findings.reasons.setdefault(step, str(error))
                    continue
                members = first.members | second.members | {step}
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
            for each in [path.source] if path else step.inputs:
                if each not in seen:
                    seen.add(each)
                    needed.append(each)
        return self.findings

    def _choose_path(self, step: Step) -> Path | None:
        gains = [_trim(path) for path in self.paths[step] if _is_gain(step, path)]
        # a norm goes to the convolution before it rather than to the one behind it
        first = (path for path in gains if not (path.source.is_conv and len(path.source.users) == 1))
        return next(first, gains[0] if gains else None)


def _have_same_axes(one: AffineMap, other: AffineMap) -> bool:
    return not (isinstance(one, ConvMap) and isinstance(other, ConvMap)) or one.num_axes == other.num_axes


def _is_gain(step: Step, path: Path) -> bool:
    """Whether one convolution instead of ``path`` has no more weights, and nobody else needs what is within."""
    if not isinstance(path.map, ConvMap) or path.map.num_weights > path.num_weights or step.is_nothing:
        return False
    if not any(each.is_conv for each in path.members):
        return False
    if sum(not each.is_nothing for each in path.members) < 2:
        return False
    return all(user in path.members for each in path.members if each is not step for user in each.users)


def _trim(path: Path) -> Path:
    """The path without the steps at its beginning that do nothing."""
    while True:
        readers = [each for each in path.source.users if each in path.members]
        if len(readers) != 1 or not readers[0].is_nothing:
            return path
        path = replace(path, source=readers[0], members=path.members - {readers[0]})

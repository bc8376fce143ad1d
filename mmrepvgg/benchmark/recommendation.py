"""The file to ship: the fastest one of an arch in a precision, and what it is faster than."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..measures.timing import Spread
from ..runtimes.table import FORMATS
from .cases import RUNTIMES, is_named
from .results import Row, divide, is_plain


@dataclass(frozen=True)
class Recommendation:
    """The fastest file of an arch.

    Attributes:
        row: Its row.
        equals: Rows of files whose quartiles overlap with those of ``row``.
        gain: Speed over that of the train form in PyTorch eager, fp32, NCHW; None if that was not timed.
    """

    row: Row
    equals: tuple[Row, ...]
    gain: Spread | None

    @property
    def command(self) -> str:
        """The command that writes the file."""
        case = self.row.case
        suffix = next(row.suffixes[0] for row in FORMATS if row.runtime == case.runtime)
        command, form = ('quantize', '_int8') if case.precision == 'int8' else ('export', '')
        if is_named(case.arch):
            data = ' --data IMAGES' if command == 'quantize' else ''
            name = case.model.partition(':')[2]
            return f'mmrepvgg {command} --model {case.model} --checkpoint CHECKPOINT{data} {name}{form}{suffix}'
        return f'mmrepvgg {command} CONFIG CHECKPOINT repvgg-{case.model.lower()}{form}{suffix}'


def recommend(rows: Sequence[Row]) -> list[Recommendation]:
    """Choose the fastest file of each arch, place and precision among those of several runtimes."""
    timed = [row for row in rows if row.time]
    trained = [row for row in timed if row.case.network == 'train' and is_plain(row.case)]
    plain = {(row.case.arch, row.case.place): row for row in trained}
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in timed:
        if row.case.network == 'deploy' and RUNTIMES[row.case.runtime].takes_files:
            groups.setdefault((row.case.arch, row.case.place, row.case.precision), []).append(row)
    return [
        _choose(group, plain.get((group[0].case.arch, group[0].case.place)))
        for group in groups.values()
        if len(group) > 1
    ]


def _choose(group: list[Row], plain: Row | None) -> Recommendation:
    best = max(group, key=lambda row: _get_speed(row).median)
    equals = tuple(row for row in group if row is not best and _get_speed(row).high >= _get_speed(best).low)
    return Recommendation(best, equals, divide(plain, best) if plain else None)


def _get_speed(row: Row) -> Spread:
    assert row.speed is not None
    return row.speed

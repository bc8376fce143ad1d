"""What a run of the benchmark found, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..measures.timing import Spread, summarise
from .cases import Case


@dataclass(frozen=True)
class Row:
    """One case and its times.

    Attributes:
        case: What was timed.
        macs: Multiply-adds of convolutions and linear layers for one image; of a training step, three times the
            forward pass's. None if it failed before they were counted.
        seconds: Of each round for one batch; None where the case was not run (its time was used up, or it failed).
        difference: Largest absolute difference of its logits from those of the reference, which is the same weights
            in fp32, train form and PyTorch eager, as a part of the largest logit.
        error: Why there are no times, in one line; None if there are.
    """

    case: Case
    macs: int | None = None
    seconds: tuple[float | None, ...] = ()
    difference: float | None = None
    error: str | None = None

    @property
    def time(self) -> Spread | None:
        """Seconds for one batch."""
        return summarise(self.seconds) if any(self.seconds) and self.error is None else None

    @property
    def speed(self) -> Spread | None:
        """Images per second."""
        if self.time is None:
            return None
        high, middle, low = (self.case.batch_size / t for t in (self.time.low, self.time.median, self.time.high))
        return Spread(low, middle, high)

    @property
    def gflops(self) -> float | None:
        """GFLOP/s, two to a multiply-add, at the median time."""
        return None if self.speed is None or self.macs is None else 2e-9 * self.macs * self.speed.median


@dataclass(frozen=True)
class Limit:
    """How fast the machine multiplied matrices between the cases.

    Attributes:
        device, precision, threads, batch_size: Of the cases beside which it was measured.
        method, size: Of the product (see :class:`mmrepvgg.benchmark.gemm.Gemm`).
        seconds: Of each round.
    """

    device: str
    precision: str
    threads: int
    batch_size: int
    method: str
    size: int
    seconds: tuple[float | None, ...]

    @property
    def gflops(self) -> float:
        """GFLOP/s at the median time; 0 if none was measured."""
        return 2e-9 * self.size**3 / summarise(self.seconds).median if any(self.seconds) else 0.0


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        rows: In the order of the cases.
        limits: Every measured one; the limit of a case is the fastest of those beside it.
        settings: How it was run: input size, repeats and so on.
        machine: What it ran on.
        versions: Of the packages.
    """

    rows: tuple[Row, ...]
    limits: tuple[Limit, ...]
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]

    def find_limit(self, case: Case) -> float:
        """GFLOP/s of the fastest matrix product in the precision of ``case``; 0 if there is none."""
        key = (case.device, case.precision, case.threads, case.batch_size)
        beside = [
            limit.gflops
            for limit in self.limits
            if (limit.device, limit.precision, limit.threads, limit.batch_size) == key
        ]
        return max(beside, default=0.0)

    def find_share(self, row: Row) -> float | None:
        """The part of the limit that ``row`` reached."""
        limit = self.find_limit(row.case)
        return row.gflops / limit if row.gflops is not None and limit else None


@dataclass(frozen=True)
class Ratio:
    """How many times as fast ``row`` is as ``other``.

    Attributes:
        row, other: Two rows of one device, number of threads and of images.
        speed: The quartiles of the ratio, round by round: what slows the machine for a while slows both.
        published: The ratio in the paper (1080 Ti, fp32, batch 128), if it has one.
    """

    row: Row
    other: Row
    speed: Spread
    published: float | None = None


# What an arch's deploy form is set against: another network of the same arch (None: of every arch), or one that has
# no arch, and the paper's ratio.
_PAIRS: tuple[tuple[str | None, str, float | None], ...] = (
    (None, 'train', None),
    (None, 'tested', None),
    (None, 'mmpretrain', None),
    (None, 'timm', None),
    ('A2', 'resnet50', 1322 / 719),
    ('B1g4', 'resnet101', 868 / 430),
)


def compute_ratios(rows: Sequence[Row]) -> list[Ratio]:
    """This project's deploy form against whatever is comparable with it and ran in the same mode.

    The last ones cross modes: the fastest of each arch's deploy forms against mmpretrain's as it is deployed without
    further thought, in eager fp32 NCHW.
    """
    timed = [row for row in rows if row.time]
    deploy = [row for row in timed if row.case.network == 'deploy']
    found = []
    for row in deploy:
        for arch, network, published in _PAIRS:
            for other in timed:
                if (
                    arch in (None, row.case.arch)
                    and other.case.network == network
                    and other.case.arch in (None, row.case.arch)
                    and other.case.mode == row.case.mode
                ):
                    found.append(Ratio(row, other, _divide(other, row), published))
    for other in timed:
        case = other.case
        if (case.network, case.runtime, case.layout, case.precision) == ('mmpretrain', 'eager', 'nchw', 'fp32'):
            rivals = [row for row in deploy if row.case.arch == case.arch and row.case.place == case.place]
            if rivals:
                fastest = min(rivals, key=_get_median)
                found.append(Ratio(fastest, other, _divide(other, fastest)))
    return found


def _divide(row: Row, other: Row) -> Spread:
    """The seconds of ``row`` over those of ``other``, round by round; if no round has both, the medians' ratio."""
    pairs = zip(row.seconds, other.seconds, strict=True)
    ratios = [a / b for a, b in pairs if a is not None and b is not None]
    return summarise(ratios or [_get_median(row) / _get_median(other)])


def _get_median(row: Row) -> float:
    return summarise(row.seconds).median

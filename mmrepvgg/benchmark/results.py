"""The results of a run, and the ratios that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..measures.timing import Spread, summarise
from .cases import Case


@dataclass(frozen=True)
class Row:
    """One case and its times.

    Attributes:
        case: The case that was timed.
        macs: Number of multiply-adds of convolutions and linear layers for one image. A training step counts three
            times those of the forward pass. None if the case failed before they were counted.
        seconds: Duration of one batch in each round, in seconds. None for rounds in which the case was not run, since
            its time was used up or it failed.
        difference: Largest absolute difference from the logits of the reference, as a part of the largest logit. The
            reference has the same weights, in train form, fp32 and PyTorch eager.
        file_size: Size in bytes of the file that is run. None if there is no file.
        memory: Bytes of all tensors at the peak of a training step: weights, gradients, momenta, activations. None for
            other rows.
        error: Reason why there are no times, in one line; None if there are times.
    """

    case: Case
    macs: int | None = None
    seconds: tuple[float | None, ...] = ()
    difference: float | None = None
    file_size: int | None = None
    memory: int | None = None
    error: str | None = None

    @property
    def time(self) -> Spread | None:
        """Seconds for one batch."""
        return summarise(self.seconds) if any(self.seconds) and self.error is None else None

    @property
    def speed(self) -> Spread | None:
        """Images per second."""
        return self.time.to_rate(self.case.batch_size) if self.time else None

    @property
    def gflops(self) -> float | None:
        """GFLOP/s at the median time, in int8 GOP/s. A multiply-add counts as two."""
        return None if self.speed is None or self.macs is None else 2e-9 * self.macs * self.speed.median


@dataclass(frozen=True)
class Limit:
    """The speed at which the machine multiplied matrices between the cases.

    Attributes:
        device, precision, threads, batch_size: Fields of the cases beside which it was measured.
        title, macs: Fields of the :class:`mmrepvgg.benchmark.product.Product` that was timed.
        seconds: Duration of the product in each round, in seconds.
    """

    device: str
    precision: str
    threads: int
    batch_size: int
    title: str
    macs: int
    seconds: tuple[float | None, ...]

    @property
    def gflops(self) -> float:
        """GFLOP/s at the median time, in int8 GOP/s; 0 if no time was measured."""
        return 2e-9 * self.macs / summarise(self.seconds).median if any(self.seconds) else 0.0


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        rows: Rows in the order of the cases.
        limits: All limits that were measured. The fastest one beside a case is the limit of the case.
        settings: Arguments of the run: input size, repeats and so on.
        machine: Description of the machine.
        versions: Versions of the packages.
    """

    rows: tuple[Row, ...]
    limits: tuple[Limit, ...]
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]

    def find_limit(self, case: Case) -> float:
        """Find the GFLOP/s of the fastest product in the precision of ``case``; 0 if there is none."""
        key = (case.device, case.precision, case.threads, case.batch_size)
        beside = [
            limit.gflops
            for limit in self.limits
            if (limit.device, limit.precision, limit.threads, limit.batch_size) == key
        ]
        return max(beside, default=0.0)

    def find_share(self, row: Row) -> float | None:
        """Find the part of the limit that ``row`` reached; None if there is no limit."""
        limit = self.find_limit(row.case)
        return row.gflops / limit if row.gflops is not None and limit else None


@dataclass(frozen=True)
class Ratio:
    """The speed of ``row`` over the speed of ``other``.

    Attributes:
        row, other: Two rows with the same device, number of threads and batch size.
        speed: Quartiles of the ratio over the rounds. If the machine is slow for a while, both rows are.
        published: Ratio in the paper (1080 Ti, fp32, batch 128), if it has one.
    """

    row: Row
    other: Row
    speed: Spread
    published: float | None = None


# Networks with which a deploy form in the same mode is compared. They have the same arch or none.
_OTHERS = ('train', 'tested', 'mmpretrain', 'timm', 'resnet50', 'resnet101')
# Ratios in the paper.
_PUBLISHED = {('A2', 'resnet50'): 1322 / 719, ('B1g4', 'resnet101'): 868 / 430}
# Who does nothing has mmpretrain's default, or the train form: in PyTorch eager, fp32 and NCHW.
_PLAIN = ('mmpretrain', 'train')


def compute_ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Compare this project's deploy form with the other networks of the same mode.

    The last ratios compare different modes: the fastest deploy form of each arch with the networks of those who do
    nothing.
    """
    timed = [row for row in rows if row.time]
    deploy = [row for row in timed if row.case.network == 'deploy']
    found = []
    for row in deploy:
        for network in _OTHERS:
            for other in timed:
                if (
                    other.case.network == network
                    and other.case.arch in (None, row.case.arch)
                    and other.case.mode == row.case.mode
                ):
                    published = _PUBLISHED.get((row.case.model, network))
                    found.append(Ratio(row, other, divide(other, row), published))
    for other in timed:
        if is_plain(other.case):
            rivals = [row for row in deploy if row.case.arch == other.case.arch and row.case.place == other.case.place]
            if rivals:
                fastest = min(rivals, key=_get_median)
                found.append(Ratio(fastest, other, divide(other, fastest)))
    return found


def is_plain(case: Case) -> bool:
    """Whether a case is the network of someone who does nothing."""
    return case.network in _PLAIN and (case.runtime, case.layout, case.precision) == ('eager', 'nchw', 'fp32')


def divide(row: Row, other: Row) -> Spread:
    """The seconds of ``row`` over those of ``other`` in each round; the ratio of medians if no round has both."""
    pairs = zip(row.seconds, other.seconds, strict=True)
    ratios = [a / b for a, b in pairs if a is not None and b is not None]
    return summarise(ratios or [_get_median(row) / _get_median(other)])


def _get_median(row: Row) -> float:
    return summarise(row.seconds).median

"""The page of a report, by a template."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jinja2
import torch

from ..benchmark.machine import describe_machine, describe_versions
from ..checkpoints.reading import hash_file
from ..printable import make_printable
from .candidates import DEPLOYED, TRAINED
from .contents import Contents
from .curves import Curves
from .figures import draw_curve
from .pictures import NUM_CHANNELS

_METRIC_TITLES = {'accuracy/top1': 'top-1 accuracy'}


@dataclass(frozen=True)
class Chart:
    """A curve.

    Attributes:
        title: Its title.
        svg: The drawing.
    """

    title: str
    svg: str


def render(contents: Contents, title: str) -> str:
    """Write the page.

    All that comes from files, such as names of classes, is escaped by the template engine.

    Args:
        contents: What it says.
        title: Its title.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('mmrepvgg.report'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= dict(thousands='{:,}'.format, amount=_format_amount, bytes=_format_bytes)
    by_name = {each.name: each for each in contents.candidates}
    machine = describe_machine()
    return environment.get_template('page.html.jinja').render(
        contents=contents,
        title=make_printable(title),
        charts=list(_draw_charts(contents.curves)),
        metric=_choose_metric(contents.curves),
        trained=contents.candidates[0],
        train_form=by_name.get(TRAINED),
        deploy_form=by_name.get(DEPLOYED),
        slowest=max((each.milliseconds for each in contents.candidates if each.milliseconds), default=1),
        num_channels=NUM_CHANNELS,
        checkpoint=make_printable(str(contents.source.checkpoint.path)),
        config=make_printable(str(contents.source.path)),
        sha256=hash_file(contents.source.checkpoint.path),
        machine=machine,
        versions=describe_versions(),
        threads=torch.get_num_threads(),
        written=time.strftime('%Y-%m-%d %H:%M'),
    )


def _choose_metric(curves: Curves) -> str | None:
    """Top-1 accuracy, or whatever else the validations measured first."""
    metrics = curves.list_metrics()
    return next((name for name in _METRIC_TITLES if name in metrics), metrics[0] if metrics else None)


def _draw_charts(curves: Curves) -> Iterator[Chart]:
    metric = _choose_metric(curves)
    values = {'Loss': [(each.number, each.loss) for each in curves.points]}
    if metric is not None:
        title = f'Validation: {_METRIC_TITLES.get(metric, metric)}, %'
        values[title] = [(each.number, each.metrics.get(metric)) for each in curves.points]
    values['Learning rate'] = [(each.number, each.rate) for each in curves.points]
    for title, pairs in values.items():
        if known := [(number, value) for number, value in pairs if value is not None]:
            x, y = zip(*known, strict=True)
            description = (
                f'{title}: {y[0]:.4g} at {curves.unit} {x[0]}, {y[-1]:.4g} at {curves.unit} {x[-1]}; lowest '
                f'{min(y):.4g}, highest {max(y):.4g}'
            )
            yield Chart(title, draw_curve(title, x, y, curves.unit, description))


def _format_amount(number: float) -> str:
    """A number with three digits and a unit: ``7.84 M``."""
    for factor, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if number >= factor:
            return f'{_round(number / factor)} {unit}'
    return _round(number)


def _format_bytes(number: int) -> str:
    return f'{_format_amount(number)}B'


def _round(number: float) -> str:
    return f'{number:.{max(0, 2 - int(math.log10(number)))}f}' if number >= 1 else f'{number:.3g}'

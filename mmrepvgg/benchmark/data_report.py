"""The report of a benchmark of the data, as text and as JSON."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.writing import replacing
from ..measures.timing import Spread
from ..tables import format_table
from .data_pipelines import Part
from .data_run import DataReport
from .report import describe_environment, format_speed

# Reading files is told from decoding them above this share of the pipeline's time.
_SLOW_FILES = 0.2


def format_data_report(report: DataReport, command: str) -> str:
    """Write Markdown: command, machine, the tables, and the verdict in the last lines."""
    return '\n'.join(_iterate_lines(report, command))


def write_data_json(report: DataReport, command: str, path: str | Path) -> None:
    """Write all results of a run to a JSON file, the raw seconds among them."""
    content = asdict(report) | dict(
        command=command,
        written=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        parts=[_describe_part(part) for part in report.parts],
        verdict=list(give_verdict(report)),
    )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n')


def give_verdict(report: DataReport) -> Iterator[str]:
    """What bounds a training of this model on this machine, and what to change."""
    step, best = report.step.median, max(report.loadings, key=lambda loading: loading.speed)
    if report.enough:
        yield (
            f'bound by compute: the step takes {step:.0f} img/s, and {report.enough.num_workers} worker(s) give '
            f'{report.enough.speed:.0f}'
        )
        yield f'- set `train_dataloader.num_workers={report.enough.num_workers}`; more workers gain nothing'
    else:
        yield (
            f'bound by data: the step takes {step:.0f} img/s, and the fastest loader, with {best.num_workers} '
            f'worker(s), gives {best.speed:.0f}'
        )
        yield f'- set `train_dataloader.num_workers={best.num_workers}`, the fastest one here'
        yield (
            f'- the pipeline needs {report.cores_needed:.1f} cores to keep up with this step, and this machine has '
            f'{report.machine["cores"]}'
        )
        yield '- images that are far larger than the crop: make them smaller once, to a short edge of 400 to 500 pixels'
    if report.machine['gpu']:
        yield '- with several GPUs in one machine, each needs as much'
    else:
        share = report.cores_needed / report.machine['cores']
        yield f'- the step runs on the same cores as the workers, which take {100 * min(1.0, share):.2g}% of them'
    files = report.parts[0].speed.median / report.parts[-1].speed.median
    if files > _SLOW_FILES:
        yield (
            f'- the files themselves take {100 * files:.0f}% of the time: read them from a faster disk, or from a few '
            'large files (shards) instead of many small ones'
        )


def _iterate_lines(report: DataReport, command: str) -> Iterator[str]:
    machine = report.machine
    yield f'`{command}`'
    yield ''
    yield describe_environment(machine, report.versions)
    start, end = machine['load_average'][0], machine['load_average_at_the_end'][0]
    yield f'load average at the start {start:.1f}, at the end {end:.1f}'
    yield f'images: {report.source}'
    yield ''
    columns = ('one process, one thread', 'img/s', 'quartiles', "mmpretrain's steps", 'quartiles', 'times as fast')
    yield format_table(columns, map(_format_part, report.parts))
    yield ''
    rows = [[str(loading.num_workers), f'{loading.speed:.0f}'] for loading in report.loadings]
    yield format_table(('workers', 'img/s'), rows, left=0)
    yield ''
    speed, quartiles = _format(report.step)
    yield f'training step, {report.device}, batch {report.batch_size}: {speed} img/s (quartiles {quartiles})'
    yield ''
    yield from give_verdict(report)


def _describe_part(part: Part) -> dict[str, Any]:
    plain, ratio = (spread and asdict(spread) for spread in (part.plain_speed, part.ratio))
    return asdict(part) | dict(images_per_second=asdict(part.speed), plain_images_per_second=plain, ratio=ratio)


def _format_part(part: Part) -> list[str]:
    plain = ('', '') if part.plain_speed is None else _format(part.plain_speed)
    return [part.title, *_format(part.speed), *plain, '' if part.ratio is None else f'{part.ratio.median:.2f}']


def _format(speed: Spread) -> tuple[str, str]:
    return format_speed(speed.median), f'{format_speed(speed.low)} to {format_speed(speed.high)}'

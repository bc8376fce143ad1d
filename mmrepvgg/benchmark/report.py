"""The report of a run, as text and as JSON."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.writing import replacing
from ..tables import format_table
from .cases import RUNTIMES
from .recommendation import Recommendation, recommend
from .results import Limit, Ratio, Report, Row, compute_ratios
from .training import BatchMemory, TrainingGain, compare_training, fit_memory

_NAMES = ('arch', 'network', 'runtime', 'layout', 'precision')
_NUMBERS = ('img/s', 'quartiles', 'ms a batch', 'GFLOP/s', 'of limit', 'difference', 'file MB', 'peak MB')

_GAIN = ('arch', 'training step', 'against', 'times as fast', 'quartiles', 'peak of memory')
# Sizes in GB for which the largest batch is given.
_MEMORIES = (8, 16, 24, 80)
_BATCHES = ('arch', 'training step', 'MB', 'MB an image', *(f'images in {size} GB' for size in _MEMORIES))
_CHOICE = ('arch', 'place', 'precision', 'runtime', 'as fast', 'ms a batch', 'times the train form', 'command')


def format_report(report: Report, command: str) -> str:
    """Write Markdown: command, machine, a table for each number of threads and batch size, limits, ratios."""
    return '\n'.join(_iterate_lines(report, command))


def write_json(report: Report, command: str, path: str | Path) -> None:
    """Write all results of a run to a JSON file: rows with raw seconds, limits, ratios, settings, machine."""
    content = dict(
        command=command,
        written=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        settings=report.settings,
        machine=report.machine,
        versions=report.versions,
        rows=[_describe_row(report, row) for row in report.rows],
        limits=[asdict(limit) | dict(gflops=limit.gflops) for limit in report.limits],
        ratios=[_describe_ratio(ratio) | dict(published=ratio.published) for ratio in compute_ratios(report.rows)],
        training=[_describe_ratio(gain) | dict(memory=gain.memory) for gain in compare_training(report.rows)],
    )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n')


def describe_environment(machine: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Describe a machine and versions in one line."""
    parts = [
        f'{machine["cpu"]}, {machine["cores"]} cores, {", ".join(machine["instructions"]) or "instructions unknown"}'
    ]
    if machine['gpu']:
        parts.append(machine['gpu'])
    parts.append(', '.join(f'{name} {version}' for name, version in versions.items()))
    return '; '.join(parts)


def _describe_row(report: Report, row: Row) -> dict[str, Any]:
    spread = asdict(row.speed) if row.speed else None
    return asdict(row) | dict(images_per_second=spread, gflops=row.gflops, share_of_limit=report.find_share(row))


def _describe_ratio(ratio: Ratio | TrainingGain) -> dict[str, Any]:
    return dict(row=asdict(ratio.row.case), other=asdict(ratio.other.case), speed=asdict(ratio.speed))


def _iterate_lines(report: Report, command: str) -> Iterator[str]:
    start, end = report.machine['load_average'][0], report.machine['load_average_at_the_end'][0]
    yield f'`{command}`'
    yield ''
    yield describe_environment(report.machine, report.versions)
    yield f'load average at the start {start:.1f}, at the end {end:.1f}'
    groups: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.speed:
            groups.setdefault(row.case.place_title, []).append(row)
    size = report.settings['input_size']
    for title, rows in groups.items():
        yield ''
        yield f'{title}, {size} x {size} pixels:'
        yield ''
        cells = [_format_row(report, row) for row in rows]
        yield format_table((*_NAMES, *_NUMBERS), cells, left=len(_NAMES))
    if report.limits:
        yield ''
        yield 'limits, as fast as matrices are multiplied between the rows:'
        yield from (f'- {_format_limit(limit)}' for limit in report.limits)
    if ratios := compute_ratios(report.rows):
        yield ''
        yield "this project's deploy form against others, round by round:"
        yield ''
        columns = ('arch', 'deploy form in', 'against', 'times as fast', 'quartiles', 'paper, 1080 Ti')
        yield format_table(columns, map(_format_ratio, ratios), left=3)
    if gains := compare_training(report.rows):
        yield ''
        yield "this project's training step against the fastest one of the other projects in the same precision:"
        yield ''
        yield format_table(_GAIN, map(_format_gain, gains), left=3)
    if fits := fit_memory(report.rows):
        yield ''
        yield 'memory of a training step, from the smallest and the largest batch, and the largest batches that fit:'
        yield ''
        yield format_table(_BATCHES, map(_format_batches, fits), left=2)
    if recommendations := recommend(report.rows):
        yield ''
        yield 'the fastest file of each precision (measure the accuracy of an int8 file, too):'
        yield ''
        yield format_table(_CHOICE, map(_format_recommendation, recommendations), left=5)
    errors: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.error:
            errors.setdefault(row.error, []).append(row)
    for error, rows in errors.items():
        yield ''
        yield f'not timed ({len(rows)}): {error}'
        yield from (f'- {row.case}' for row in rows)


def _format_gain(gain: TrainingGain) -> list[str]:
    case, other, speed = gain.row.case, gain.other.case, gain.speed
    return [
        case.model,
        f'{case.title}, {case.mode_title}; {case.place_title}',
        f'{other.title}, {other.layout}',
        f'{speed.median:.2f}',
        f'{speed.low:.2f} to {speed.high:.2f}',
        '' if gain.memory is None else f'{gain.memory:.2f}',
    ]


def _format_batches(fit: BatchMemory) -> list[str]:
    case = fit.row.case
    return [
        case.model,
        f'{case.title}, {case.mode_title}',
        f'{fit.fixed / 1e6:.0f}',
        f'{fit.per_image / 1e6:.1f}',
        *(str(fit.count_images(1e9 * size)) for size in _MEMORIES),
    ]


def _format_recommendation(found: Recommendation) -> list[str]:
    case, time = found.row.case, found.row.time
    return [
        case.model,
        case.place_title,
        case.precision,
        RUNTIMES[case.runtime].title,
        ', '.join(RUNTIMES[row.case.runtime].title for row in found.equals),
        '' if time is None else f'{1e3 * time.median:.1f}',
        '' if found.gain is None else f'{found.gain.median:.2f}',
        f'`{found.command}`',
    ]


def _format_row(report: Report, row: Row) -> list[str]:
    case = row.case
    names = [case.arch or '', case.title, RUNTIMES[case.runtime].title, case.layout or '']
    if row.speed is None or row.time is None or row.gflops is None:
        raise AssertionError(f'only rows with times are in the table, got {row}')
    share = report.find_share(row)
    return [
        *names,
        case.precision,
        format_speed(row.speed.median),
        f'{format_speed(row.speed.low)} to {format_speed(row.speed.high)}',
        f'{1e3 * row.time.median:.1f}',
        f'{row.gflops:.0f}',
        '' if share is None else f'{share:.2f}',
        '' if row.difference is None else f'{row.difference:.0e}',
        '' if row.file_size is None else f'{row.file_size / 1e6:.1f}',
        '' if row.memory is None else f'{row.memory / 1e6:.0f}',
    ]


def format_speed(images_per_second: float) -> str:
    """Write a speed with three digits, or all digits before the point."""
    return f'{images_per_second:.0f}' if images_per_second >= 100 else f'{images_per_second:.3g}'


def _format_limit(limit: Limit) -> str:
    beside = f'{limit.threads} thread(s), beside batch {limit.batch_size}'
    unit = 'GOP/s' if limit.precision == 'int8' else 'GFLOP/s'
    return f'{limit.device} {limit.precision}, {beside}: {limit.gflops:.0f} {unit} ({limit.title})'


def _format_ratio(ratio: Ratio) -> list[str]:
    case, other, speed = ratio.row.case, ratio.other.case, ratio.speed
    against = other.title
    return [
        case.arch or '',
        f'{case.mode_title}; {case.place_title}',
        against if other.mode == case.mode else f'{against}, in {other.mode_title}',
        f'{speed.median:.2f}',
        f'{speed.low:.2f} to {speed.high:.2f}',
        f'{ratio.published:.2f}' if ratio.published else '',
    ]

"""The study's tables, in Markdown."""

import statistics
from collections.abc import Iterator, Sequence

from scipy.stats import spearmanr

from ..quantization.results import GRANULARITIES
from ..quantization.verdict import find_level
from .measuring import SUFFIXES, Measurement
from .subjects import KINDS, RECIPES


def format_study(measurements: Sequence[Measurement], min_accuracy: float | None) -> str:
    """Every model with every precision, prediction against measurement, and what goes with the loss."""
    return '\n'.join(
        [
            *_iterate_accuracies(measurements, min_accuracy or 0.0),
            '',
            *_iterate_predictions(measurements),
            '',
            *_iterate_traits(measurements),
        ]
    )


def _iterate_accuracies(measurements: Sequence[Measurement], min_accuracy: float) -> Iterator[str]:
    yield (
        'Top-1 in percent. ORT: ONNX Runtime; ov: OpenVINO; t, c: int8 with one scale per tensor, per channel. '
        'Fallback: ORT t, layers put back to float32 until at most 0.5 points are lost (number of layers).'
    )
    yield ''
    files = [f'{name} {g[4]}' for name in ('ORT', 'ov') for g in GRANULARITIES]
    yield from _start_table('model', 'trained by', 'seed', 'epochs', 'fp32', 'bf16', *files, 'fallback')
    for m in measurements:
        values = [m.files[runtime][granularity] for runtime in SUFFIXES for granularity in GRANULARITIES]
        fallback = '-' if m.fallback is None else f'{m.fallback:.2f} ({len(m.kept)})'
        note = '' if m.fp32 >= min_accuracy else ' *'
        yield _format_row(
            *(KINDS[m.subject.kind].title, RECIPES[m.subject.recipe].title, m.subject.seed, m.epochs),
            *(f'{m.fp32:.2f}{note}', f'{m.bf16:.2f}', *(f'{value:.2f}' for value in values), fallback),
        )
    if any(m.fp32 < min_accuracy for m in measurements):
        yield ''
        yield f'\\* below {min_accuracy:g}% in float32: not trained to the end.'


def _iterate_predictions(measurements: Sequence[Measurement]) -> Iterator[str]:
    yield 'Points lost by ONNX Runtime, as tools/analyze_quantization.py predicts and as measured:'
    yield ''
    columns = (f'{granularity}, {what}' for granularity in GRANULARITIES for what in ('predicted', 'measured', 'agree'))
    yield from _start_table('model', 'trained by', 'seed', *columns)
    agreeing = total = 0
    for m in measurements:
        # trained for int8: the file has the ranges of the training, not those of a calibration
        if m.subject.kind == 'qat':
            continue
        cells: list[str] = []
        for granularity in GRANULARITIES:
            predicted, measured = m.predicted[granularity], m.drop('ONNX Runtime', granularity)
            levels = find_level(predicted), find_level(measured)
            agreeing += levels[0] == levels[1]
            total += 1
            cells += [
                f'{predicted:.2f} {levels[0]}',
                f'{measured:.2f} {levels[1]}',
                'yes' if len(set(levels)) == 1 else 'NO',
            ]
        yield _format_row(KINDS[m.subject.kind].title, RECIPES[m.subject.recipe].title, m.subject.seed, *cells)
    yield ''
    yield f'The verdict agrees with the measured drop in {agreeing} of {total} cases.'


def _iterate_traits(measurements: Sequence[Measurement]) -> Iterator[str]:
    plain = [m for m in measurements if m.subject.kind != 'qat']
    drops = [m.drop('ONNX Runtime', 'per-tensor') for m in plain]
    lost = [m for m, drop in zip(plain, drops, strict=True) if find_level(drop) != 'safe']
    kept = [m for m in plain if m not in lost]
    yield (
        f'What goes with the loss: medians over the {len(kept)} models that per-tensor int8 leaves safe and the '
        f'{len(lost)} others, and the rank correlation with the measured drop.'
    )
    yield ''
    yield from _start_table('', 'safe', 'others', "Spearman's rho")
    for trait in plain[0].traits:
        medians = [
            f'{statistics.median(m.traits[trait] for m in group):.3g}' if group else '-' for group in (kept, lost)
        ]
        rho = spearmanr([m.traits[trait] for m in plain], drops).statistic if len(plain) > 2 else float('nan')
        yield _format_row(trait, *medians, f'{rho:.2f}')


def _start_table(*columns: str) -> Iterator[str]:
    yield _format_row(*columns)
    yield _format_row(*('---' for _ in columns))


def _format_row(*cells: object) -> str:
    return f'| {" | ".join(map(str, cells))} |'

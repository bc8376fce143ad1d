"""The study's tables, in Markdown."""

import statistics
from collections.abc import Iterator, Sequence

from scipy.stats import spearmanr

from mmrepvgg.quantization.analysis.verdict import find_level
from mmrepvgg.tables import format_table

from .files import EXPLAINED, FILES, LEGEND, PREDICTED
from .measuring import Measurement
from .subjects import KINDS, RECIPES, Subject


def format_study(measurements: Sequence[Measurement], min_accuracy: float | None) -> str:
    """Every model with every precision, prediction against measurement, and what goes with the loss."""
    return '\n'.join(
        [
            *_iterate_accuracies(measurements, min_accuracy or 0.0),
            '',
            *_iterate_losses(measurements),
            '',
            *_iterate_predictions(measurements),
            '',
            *_iterate_traits(measurements),
        ]
    )


def _iterate_accuracies(measurements: Sequence[Measurement], min_accuracy: float) -> Iterator[str]:
    def format_row(m: Measurement) -> list[object]:
        values = [m.files.get(name) for name in FILES]
        note = '' if m.fp32 >= min_accuracy or m.is_trained_for_int8 else ' *'
        return [
            *_name(m.subject),
            m.epochs,
            f'{m.fp32:.2f}{note}',
            f'{m.bf16:.2f}',
            *('-' if value is None else f'{value:.2f}' for value in values),
        ]

    yield f'Top-1 in percent; {LEGEND}.'
    yield ''
    columns = ('model', 'trained by', 'seed', 'epochs', 'fp32', 'bf16', *FILES)
    yield format_table(columns, map(format_row, measurements), left=2)
    if any(m.fp32 < min_accuracy and not m.is_trained_for_int8 for m in measurements):
        yield ''
        yield f'\\* below {min_accuracy:g}% in float32: not trained to the end.'


def _iterate_losses(measurements: Sequence[Measurement]) -> Iterator[str]:
    started = {(m.subject.recipe, m.subject.seed): m.fp32 for m in measurements if m.subject.kind == 'repvgg'}
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for m in measurements:
        groups.setdefault((m.subject.kind, m.subject.recipe), []).append(m)

    def format_row(title: tuple[str, ...], group: Sequence[Measurement]) -> list[str]:
        before = [
            started.get((m.subject.recipe, m.subject.seed), m.fp32) if m.is_trained_for_int8 else m.fp32 for m in group
        ]
        return [*title, *(_format_losses(before, [m.files.get(name) for m in group]) for name in FILES)]

    yield (
        'Points of top-1 lost to float32, the mean and the largest; of quantization-aware training to the float32 '
        'RepVGG that it started from.'
    )
    yield ''
    rows = [format_row(_name(group[0].subject)[:2], group) for group in groups.values()]
    repvggs = [m for m in measurements if m.subject.kind in ('repvgg', 'custom-l2')]
    rows.append(format_row(('RepVGG, with and without custom L2', 'both'), repvggs))
    yield format_table(('model', 'trained by', *FILES), rows, left=2)


def _name(subject: Subject) -> tuple[str, str, str]:
    return KINDS[subject.kind].title, RECIPES[subject.recipe].title, str(subject.seed)


def _format_losses(before: Sequence[float], after: Sequence[float | None]) -> str:
    losses = [b - a for b, a in zip(before, after, strict=True) if a is not None]
    # without the sign of a zero
    return (
        ', '.join(f'{round(loss, 2) + 0.0:.2f}' for loss in (statistics.mean(losses), max(losses))) if losses else '-'
    )


def _iterate_predictions(measurements: Sequence[Measurement]) -> Iterator[str]:
    rows = []
    agreeing = total = 0
    for m in measurements:
        if m.is_trained_for_int8:
            continue
        cells: list[str] = []
        for file in PREDICTED.values():
            predicted, measured = m.predicted[file], m.drop(file)
            levels = find_level(predicted), find_level(measured)
            agreeing += levels[0] == levels[1]
            total += 1
            cells += [
                f'{predicted:.2f} {levels[0]}',
                f'{measured:.2f} {levels[1]}',
                'yes' if len(set(levels)) == 1 else 'NO',
            ]
        rows.append([*_name(m.subject), *cells])
    yield 'Points lost by ONNX Runtime, as the analysis predicts and as measured:'
    yield ''
    columns = (f'{file}, {what}' for file in PREDICTED.values() for what in ('predicted', 'measured', 'agree'))
    yield format_table(('model', 'trained by', 'seed', *columns), rows, left=2)
    yield ''
    yield f'The verdict agrees with the measured drop in {agreeing} of {total} cases.'


def _iterate_traits(measurements: Sequence[Measurement]) -> Iterator[str]:
    plain = [m for m in measurements if not m.is_trained_for_int8]
    if not plain:
        return
    drops = [m.drop(EXPLAINED) for m in plain]
    lost = [m for m, drop in zip(plain, drops, strict=True) if find_level(drop) != 'safe']
    kept = [m for m in plain if m not in lost]

    def format_row(trait: str) -> list[str]:
        medians = [
            f'{statistics.median(m.traits[trait] for m in group):.3g}' if group else '-' for group in (kept, lost)
        ]
        rho = spearmanr([m.traits[trait] for m in plain], drops).statistic if len(plain) > 2 else float('nan')
        return [trait, *medians, f'{rho:.2f}']

    yield (
        f'What goes with the loss: medians over the {len(kept)} models that plain per-tensor int8 leaves safe and the '
        f'{len(lost)} others, and the rank correlation with the measured drop.'
    )
    yield ''
    yield format_table(('', 'safe', 'others', "Spearman's rho"), map(format_row, plain[0].traits))

"""The report of an analysis, as text and as JSON. Imports no torch."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...checkpoints.writing import replacing
from ...models.fake_quant_settings import GRANULARITIES
from ...tables import format_table
from .results import Analysis, Layer, Outcome
from .verdict import LEVELS, Prediction, Verdict, find_mark

_COLUMNS = (
    'layer', 'max/std', 'centre', 'channels', 'in min', 'in max', 'outliers', 'in channels',
    'weights dB', 'output dB', 'effect dB', 'mark',
)  # fmt: skip
_LEGEND = (
    'of the fused kernel, max/std: largest weight over the standard deviation; centre: centre tap over the rest; '
    'channels: largest output channel over the median one',
    'of the input: minimum; maximum; outliers: largest value over the 99.99th percentile; largest channel over the '
    'median one',
    f'dB: signal over int8 noise; weights and output ({" / ".join(GRANULARITIES)}, this layer alone in int8): a '
    'quarter of the channels are below; effect: of the logits, this layer alone in int8, per-tensor: ! below 20, '
    '!! below 10',
)


def format_report(analysis: Analysis, verdict: Verdict) -> str:
    """Write Markdown tables of the layers, the norms before fusion and the outcomes, and then the verdict."""
    return '\n'.join(_iterate_lines(analysis, verdict))


def write_json(analysis: Analysis, verdict: Verdict, path: str | Path) -> None:
    """Write all results to a JSON file. The entry ``fp32`` has the accuracy in float32."""
    content: dict[str, Any] = dict(
        fp32=dict(accuracy=analysis.accuracy, num_images=analysis.num_images),
        num_calibration=analysis.num_calibration,
        was_switched=analysis.was_switched,
        levels={level: limit for level, limit in LEVELS.items() if limit < 100},
        verdict=asdict(verdict),
        outcomes=[
            asdict(outcome) | dict(agreement=outcome.agreement, drop=outcome.drop) for outcome in analysis.outcomes
        ],
        layers=[asdict(layer) | dict(mark=find_mark(layer)) for layer in analysis.layers],
    )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n')


def _iterate_lines(analysis: Analysis, verdict: Verdict) -> Iterator[str]:
    yield format_table(_COLUMNS, map(_format_layer, analysis.layers))
    yield ''
    yield from _LEGEND
    if any(layer.norms for layer in analysis.layers):
        branches = list(dict.fromkeys(norm.branch for layer in analysis.layers for norm in layer.norms))
        rows = [_format_norms(layer, branches) for layer in analysis.layers if layer.norms]
        yield ''
        yield (
            'before the fusion, batch norms as scales |gamma| / sqrt(var + eps), median / largest channel; smallest '
            'running variance; nearly dead channels (variance below eps)'
        )
        yield ''
        yield format_table(('block', *branches, 'smallest var', 'dead'), rows)
    columns = ('in int8', 'top-1', 'points lost', 'agrees with fp32', 'logits dB')
    fp32 = ['nothing (fp32)', _format_percent(analysis.accuracy), '', '', '']
    yield ''
    yield f'on {analysis.num_images} images, ranges from {analysis.num_calibration}:'
    yield ''
    yield format_table(columns, [fp32, *map(_format_outcome, analysis.outcomes)])
    yield ''
    yield from _iterate_verdict(analysis, verdict)


def _iterate_verdict(analysis: Analysis, verdict: Verdict) -> Iterator[str]:
    yield 'VERDICT'
    yield from (_format_prediction(prediction, analysis) for prediction in verdict.predictions)
    if verdict.blame:
        what = {'both': 'weights and activations alike'}.get(verdict.blame, f'its {verdict.blame}')
        yield f'what harms per-tensor int8: {what}. The worst layers:'
        yield from (f'- {cause}' for cause in verdict.causes)
    yield 'advice:'
    yield from (f'- {advice}' for advice in verdict.advice)


def _format_layer(layer: Layer) -> list[str]:
    kernel, inputs = layer.kernel, layer.inputs
    return [
        layer.name,
        f'{kernel.max_over_std:.1f}',
        '' if kernel.centre_over_rest is None else f'{kernel.centre_over_rest:.1f}',
        f'{kernel.channel_spread:.1f}',
        f'{inputs.low:.3g}',
        f'{inputs.high:.3g}',
        f'{inputs.outlier_ratio:.1f}',
        f'{inputs.channel_spread:.1f}',
        ' / '.join(str(round(layer.weight_snr[granularity])) for granularity in GRANULARITIES),
        ' / '.join(str(round(layer.output_snr[granularity])) for granularity in GRANULARITIES),
        str(round(layer.effect)),
        find_mark(layer),
    ]


def _format_norms(layer: Layer, branches: list[str]) -> list[str]:
    scales = {norm.branch: f'{norm.scale:.3g} / {norm.largest_scale:.3g}' for norm in layer.norms}
    variance = min(norm.smallest_variance for norm in layer.norms)
    num_dead = sum(norm.num_dead for norm in layer.norms)
    return [layer.name, *(scales.get(branch, '') for branch in branches), f'{variance:.1e}', str(num_dead or '')]


def _format_outcome(outcome: Outcome) -> list[str]:
    if not outcome.weights:
        name = 'activations alone'
    elif not outcome.activations:
        name = f'weights alone, {outcome.granularity}'
    elif outcome.treatment:
        name = f'everything, {outcome.granularity}, {outcome.treatment}'
    elif outcome.kept:
        name = f'{outcome.granularity}, but for {len(outcome.kept)} layer(s)'
    else:
        name = f'everything, {outcome.granularity}'
    return [
        name,
        _format_percent(outcome.accuracy),
        f'{outcome.drop:.2f}' if outcome.accuracy is not None else f'<= {outcome.drop:.2f}',
        f'{outcome.agreement:.2f}%',
        f'{outcome.logits_snr:.1f}',
    ]


def _format_percent(accuracy: float | None) -> str:
    return '' if accuracy is None else f'{accuracy:.2f}%'


def _format_prediction(prediction: Prediction, analysis: Analysis) -> str:
    loss = f'about {prediction.drop:.2f} points' if analysis.accuracy is not None else f'at most {prediction.drop:.2f}'
    name = ', '.join(filter(None, [f'{prediction.granularity} int8', prediction.treatment]))
    return (
        f'{name}: {prediction.level.upper()}: will lose {loss} '
        f'(95% interval {prediction.low:.1f} to {prediction.high:.1f})'
    )

"""The verdict about an analysis: a prediction, its causes and advice. Imports no torch."""

import math
from dataclasses import dataclass

from ...models.fake_quant_settings import GRANULARITIES
from .results import TREATMENTS, Analysis, Layer, Outcome

# Largest predicted loss of top-1 accuracy of each level, in points.
LEVELS = {'safe': 1.0, 'at risk': 10.0, 'collapses': math.inf}
# Upper limit of each mark for the signal over noise of the logits, in dB, when only this layer is int8.
MARKS = {'!!': 10.0, '!': 20.0, '': math.inf}

# Ratios from which on a statistic counts as a cause.
WIDE_CHANNELS = 8.0  # the median channel loses three of eight bits
WIDE_INPUTS = 8.0
TALL_KERNEL = 50.0

MAX_WORST = 5


@dataclass(frozen=True)
class Prediction:
    """The predicted loss of a real int8 file.

    Attributes:
        granularity: ``'per-tensor'`` or ``'per-channel'``: what has a scale of its own in the weights.
        treatment: One of ``TREATMENTS``: what is done before.
        drop: Loss of top-1 accuracy in points; without labels the largest possible loss.
        low: Lower end of the 95% interval, which depends on the number of images.
        high: Upper end of that interval.
        level: Key of ``LEVELS`` for ``drop``.
        is_certain: Whether the whole interval has this level.
    """

    granularity: str
    treatment: str
    drop: float
    low: float
    high: float
    level: str
    is_certain: bool


@dataclass(frozen=True)
class Verdict:
    """The predictions, their causes and advice.

    Attributes:
        predictions: Prediction for each of ``GRANULARITIES``, and for per-tensor int8 with each treatment.
        blame: Cause of the loss of per-tensor int8: ``'weights'``, ``'activations'`` or ``'both'``. None if it is safe.
        worst: Names of the layers that do most harm, the worst first; empty if per-tensor int8 is safe.
        causes: Sentence about each of these layers.
        advice: Sentences with advice.
    """

    predictions: tuple[Prediction, ...]
    blame: str | None
    worst: tuple[str, ...]
    causes: tuple[str, ...]
    advice: tuple[str, ...]


def judge(analysis: Analysis) -> Verdict:
    """Predict the loss of int8 files, find its causes and give advice."""
    by_granularity = {granularity: predict(analysis.find(granularity)) for granularity in GRANULARITIES}
    per_tensor, per_channel = by_granularity['per-tensor'], by_granularity['per-channel']
    is_safe = per_tensor.level == 'safe'
    worst = () if is_safe else find_worst(analysis.layers)
    names = tuple(layer.name for layer in worst)
    treated = tuple(predict(analysis.find('per-tensor', treatment=treatment)) for treatment in TREATMENTS[1:])
    return Verdict(
        (*by_granularity.values(), *treated),
        None if is_safe else find_blame(analysis),
        names,
        tuple(map(explain, worst)),
        tuple(_advise(analysis, per_tensor, per_channel, treated, names)),
    )


def predict(outcome: Outcome) -> Prediction:
    """Predict the loss on other images of this kind, with a 95% interval.

    The interval is that of Agresti and Min (2005) for the difference of paired proportions. It adds half an image to
    each of the four cells. So the interval is not empty even if int8 and float32 agree on all images.
    """
    num, lost, gained = outcome.num_images + 2, outcome.num_lost + 0.5, outcome.num_gained + 0.5
    middle = (lost - gained) / num
    error = math.sqrt(max(lost + gained - (lost - gained) ** 2 / num, 0.0)) / num
    # the interval is within -100 and 100, and always contains the drop
    low = min(100 * max(middle - 1.96 * error, -1.0), outcome.drop)
    high = max(100 * min(middle + 1.96 * error, 1.0), outcome.drop)
    level = find_level(outcome.drop)
    is_certain = find_level(low) == find_level(high) == level
    return Prediction(outcome.granularity, outcome.treatment, outcome.drop, low, high, level, is_certain)


def find_level(drop: float) -> str:
    """The key of ``LEVELS`` for a loss in points."""
    return next(level for level, limit in LEVELS.items() if drop <= limit)


def find_mark(layer: Layer) -> str:
    """The key of ``MARKS`` for a layer."""
    return next(mark for mark, limit in MARKS.items() if layer.effect < limit)


def find_worst(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Find the layers that do most harm: at most ``MAX_WORST`` that have a mark, or else the worst layer."""
    ranked = sorted(layers, key=lambda layer: layer.effect)
    return tuple(layer for layer in ranked[:MAX_WORST] if find_mark(layer)) or tuple(ranked[:1])


def find_blame(analysis: Analysis) -> str:
    """Find the cause of the loss of per-tensor int8: weights or activations, if one loses over twice as much, or both.

    The loss is compared in points of accuracy. The noise of the logits says little when it is as strong as the signal.
    """
    weights = analysis.find('per-tensor', activations=False).drop
    activations = analysis.find('per-tensor', weights=False).drop
    if find_level(max(weights, activations)) == 'safe' or min(weights, activations) * 2 >= max(weights, activations):
        return 'both'
    return 'weights' if weights > activations else 'activations'


def explain(layer: Layer) -> str:
    """Explain why a layer does harm, in a sentence that begins with its name."""
    reasons = []
    kernel, inputs = layer.kernel, layer.inputs
    if kernel.channel_spread >= WIDE_CHANNELS:
        reasons.append(
            f'its largest output channel is {kernel.channel_spread:.0f} times the median one' + _blame_norm(layer)
        )
    elif kernel.max_over_std >= TALL_KERNEL:
        centre = kernel.centre_over_rest
        where = f' (centre tap {centre:.1f} times the rest)' if centre and centre > 2 else ''
        reasons.append(
            f'its largest weight is {kernel.max_over_std:.0f} standard deviations{where}' + _blame_norm(layer)
        )
    if inputs.outlier_ratio >= WIDE_INPUTS:
        reasons.append(f'its largest input is {inputs.outlier_ratio:.0f} times the 99.99th percentile')
    elif inputs.channel_spread >= WIDE_CHANNELS:
        reasons.append(f'its largest input channel is {inputs.channel_spread:.0f} times the median one')
    return f'{layer.name}: {"; ".join(reasons) or "no single cause stands out"}'


def _blame_norm(layer: Layer) -> str:
    if not layer.norms:
        return ''
    norm = max(layer.norms, key=lambda norm: norm.largest_scale)
    text = f", from the {norm.branch} branch: its batch norm's scales reach {norm.largest_scale:.3g}"
    if norm.spread >= 2:
        text += f', {norm.spread:.0f} times their median'
    if norm.num_dead:
        text += f' ({norm.num_dead} nearly dead channel(s), running variance down to {norm.smallest_variance:.1g})'
    return text


def _advise(
    analysis: Analysis,
    per_tensor: Prediction,
    per_channel: Prediction,
    treated: tuple[Prediction, ...],
    worst: tuple[str, ...],
) -> list[str]:
    unsure = [
        f'{p.granularity} is not certain on {analysis.num_images} images ({p.low:+.1f} to {p.high:+.1f} points lost); '
        'more images (`num_samples`) narrow that down'
        for p in (per_tensor, per_channel)
        if not p.is_certain
    ]
    chance = 100 / analysis.num_classes
    if analysis.accuracy is not None and analysis.accuracy < min(2 * chance, chance + 0.2 * (100 - chance)):
        unsure.append(
            f'float32 is right on only {analysis.accuracy:.1f}% of the images, hardly more than by chance, so int8 '
            'has nothing to lose; analyze a trained checkpoint'
        )
    if per_tensor.level == 'safe':
        either = 'per-tensor or per-channel' if per_channel.level == 'safe' else 'per-tensor'
        return [f'ship int8, {either}', *unsure]
    equalized, rounded = treated
    advice = [
        'equalize the channels, which is exact: per-tensor weights then lose '
        f'{_count(equalized.drop)} in a file of `export_model` with `equalize=True`, by whatever quantizer, and '
        f'{_count(rounded.drop)} as `quantize_model` writes them (without it {_count(per_tensor.drop)})',
        'or use per-channel weights, where the target takes them: they lose '
        f'{_count(per_channel.drop)} without more ado',
    ]
    if rounded.level != 'safe':
        kept = analysis.find('per-tensor', keeping=True)
        advice.append(
            'or `quantize_model` with `max_drop=0.5`, which keeps layers in float32; with '
            f'{", ".join(worst)} in float32 (not equalized) the loss is {_count(kept.drop)}'
        )
    advice.append('or train for it: quantization-aware training, or QARepVGG blocks, whose fused kernels stay narrow')
    return advice + unsure


def _count(drop: float) -> str:
    return f'about {drop:.1f} points' if drop > 0 else 'nothing'

"""From an analysis to a prediction, its causes, and what to do. Imports no torch."""

import math
from dataclasses import dataclass

from ...models.fake_quant_settings import GRANULARITIES
from .results import Analysis, Layer, Outcome

# Levels by the largest predicted loss of top-1 accuracy, in points.
LEVELS = {'safe': 1.0, 'at risk': 10.0, 'collapses': math.inf}
# Marks of layers by the largest signal-to-noise ratio of the logits with this layer alone in int8, in dB.
MARKS = {'!!': 10.0, '!': 20.0, '': math.inf}

# Ratios above which a statistic is named as a cause.
WIDE_CHANNELS = 8.0  # three of eight bits are lost to the median channel
WIDE_INPUTS = 8.0
TALL_KERNEL = 50.0

MAX_WORST = 5


@dataclass(frozen=True)
class Prediction:
    """What a real int8 file will lose.

    Attributes:
        granularity: Of the weights.
        drop: Points of top-1 accuracy; without labels the most that it can be.
        low: Lower end of the 95% interval, from the number of images.
        high: Its upper end.
        level: A key of ``LEVELS``, of ``drop``.
        is_certain: Whether the whole interval is of that level.
    """

    granularity: str
    drop: float
    low: float
    high: float
    level: str
    is_certain: bool


@dataclass(frozen=True)
class Verdict:
    """What to expect and to do.

    Attributes:
        predictions: One for each of ``GRANULARITIES``.
        blame: What destroys per-tensor int8: ``'weights'``, ``'activations'``, ``'both'``; None if nothing does.
        worst: Names of the layers that do the most harm, the worst first; none if per-tensor int8 is safe.
        causes: A sentence for each of these layers.
        advice: Sentences.
    """

    predictions: tuple[Prediction, ...]
    blame: str | None
    worst: tuple[str, ...]
    causes: tuple[str, ...]
    advice: tuple[str, ...]


def judge(analysis: Analysis) -> Verdict:
    """Predict what int8 files will lose, and say why and what to do."""
    by_granularity = {granularity: predict(analysis.find(granularity)) for granularity in GRANULARITIES}
    per_tensor, per_channel = by_granularity['per-tensor'], by_granularity['per-channel']
    is_safe = per_tensor.level == 'safe'
    worst = () if is_safe else find_worst(analysis.layers)
    names = tuple(layer.name for layer in worst)
    return Verdict(
        tuple(by_granularity.values()),
        None if is_safe else find_blame(analysis),
        names,
        tuple(map(explain, worst)),
        tuple(_advise(analysis, per_tensor, per_channel, names)),
    )


def predict(outcome: Outcome) -> Prediction:
    """The loss on the images at hand, and the 95% interval for others like them.

    The interval is that of Agresti and Min (2005) for the difference of paired proportions: half an image is added to
    each of the four cells, so that images which all agree do not promise that all others will.
    """
    num, lost, gained = outcome.num_images + 2, outcome.num_lost + 0.5, outcome.num_gained + 0.5
    middle = (lost - gained) / num
    error = math.sqrt(max(lost + gained - (lost - gained) ** 2 / num, 0.0)) / num
    # clipped, and never without the number itself
    low = min(100 * max(middle - 1.96 * error, -1.0), outcome.drop)
    high = max(100 * min(middle + 1.96 * error, 1.0), outcome.drop)
    level = find_level(outcome.drop)
    return Prediction(outcome.granularity, outcome.drop, low, high, level, find_level(low) == find_level(high) == level)


def find_level(drop: float) -> str:
    """The key of ``LEVELS`` for a loss in points."""
    return next(level for level, limit in LEVELS.items() if drop <= limit)


def find_mark(layer: Layer) -> str:
    """The key of ``MARKS`` for a layer."""
    return next(mark for mark, limit in MARKS.items() if layer.effect < limit)


def find_worst(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers that do the most harm: those marked, at most ``MAX_WORST``, or the one worst if none is."""
    ranked = sorted(layers, key=lambda layer: layer.effect)
    return tuple(layer for layer in ranked[:MAX_WORST] if find_mark(layer)) or tuple(ranked[:1])


def find_blame(analysis: Analysis) -> str:
    """Which of weights and activations destroys per-tensor int8: what alone loses more than twice as much.

    In points, not by the logits' noise: that says little once it is as loud as the signal.
    """
    weights = analysis.find('per-tensor', activations=False).drop
    activations = analysis.find('per-tensor', weights=False).drop
    if find_level(max(weights, activations)) == 'safe' or min(weights, activations) * 2 >= max(weights, activations):
        return 'both'
    return 'weights' if weights > activations else 'activations'


def explain(layer: Layer) -> str:
    """Why a layer does harm, in a sentence that begins with its name."""
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
        reasons.append(f'its input reaches {inputs.outlier_ratio:.0f} times what 99.99% of it stay below')
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


def _advise(analysis: Analysis, per_tensor: Prediction, per_channel: Prediction, worst: tuple[str, ...]) -> list[str]:
    unsure = [
        f'{p.granularity} is not certain on {analysis.num_images} images ({p.low:+.1f} to {p.high:+.1f} points lost); '
        'more images (`num_samples`) narrow that down'
        for p in (per_tensor, per_channel)
        if not p.is_certain
    ]
    chance = 100 / analysis.num_classes
    if analysis.accuracy is not None and analysis.accuracy < min(2 * chance, chance + 0.2 * (100 - chance)):
        unsure.append(
            f'float32 itself is right on only {analysis.accuracy:.1f}% of the images, hardly more than by chance: '
            'there is nothing to lose yet; analyze a trained checkpoint'
        )
    if per_tensor.level == 'safe':
        either = 'per-tensor or per-channel' if per_channel.level == 'safe' else 'per-tensor'
        return [f'ship int8, {either}', *unsure]
    advice = []
    if per_channel.level == 'safe':
        advice.append(
            f'use per-channel weights: they lose {_count(per_channel.drop)}, per-tensor ones {_count(per_tensor.drop)}'
        )
    else:
        advice.append(
            f'per-channel weights will not do either: they lose {_count(per_channel.drop)} '
            f'(per-tensor ones {_count(per_tensor.drop)})'
        )
    kept = analysis.find('per-tensor', keeping=True)
    advice.append(
        f'{"for a target that takes per-tensor only" if per_channel.level == "safe" else "or"}: `quantize_model` with '
        f'`max_drop=0.5` keeps layers in float32; with {", ".join(worst)} in float32 the loss is {_count(kept.drop)}'
    )
    if (clipped := analysis.find_clipped()) is not None:
        advice.append(
            'or limit what nearly dead channels do to the kernels: by `quantize_model` with '
            f'`clip_scales={clipped.clip_scales:g}`, all layers per-tensor, the loss is {_count(clipped.drop)}'
        )
    advice.append('or train for it: quantization-aware training, or QARepVGG blocks, whose fused kernels stay narrow')
    return advice + unsure


def _count(drop: float) -> str:
    return f'about {drop:.1f} points' if drop > 0 else 'nothing'

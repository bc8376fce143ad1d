"""The picture of an analysis. Bad layers are red."""

import math
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...checkpoints.writing import replacing, require_writable
from .results import Analysis, Layer
from .verdict import MARKS, Verdict, find_mark

# Okabe and Ito's palette, which colour-blind people can read.
_COLOURS = {'!!': '#D55E00', '!': '#E69F00', '': '#0072B2'}
_TITLES = {'!!': 'under 10 dB', '!': 'under 20 dB', '': '20 dB and more'}
_BITS = LinearSegmentedColormap.from_list('bits', ['#D55E00', '#FFFFFF', '#0072B2'])
_HATCHES = {'per-tensor': '', 'per-channel': '///'}
_SHIFTS = {'per-tensor': -0.2, 'per-channel': 0.2}
_INCHES_PER_LAYER = 0.3


def draw_picture(analysis: Analysis, verdict: Verdict, path: str | Path) -> None:
    """Write a PNG with four panels. Each layer has a column.

    The panels show: the signal over noise of the logits with only this layer in int8; the signal over noise of the
    layer's own output, per-tensor beside per-channel; the number of bits of a per-tensor scale that its output channels
    use, from the smallest channel to the largest; the number of bits of its input that serve outliers.

    Args:
        analysis: The analysis.
        verdict: The verdict about it.
        path: File to write.
    """
    require_writable(path)
    layers = analysis.layers
    figure = Figure(figsize=(max(9.0, _INCHES_PER_LAYER * len(layers) + 3), 11), layout='constrained')
    FigureCanvasAgg(figure)
    effect, output, channels, inputs = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 3, 2))
    _draw_effect(effect, layers)
    _draw_output(output, layers)
    _draw_channels(figure, channels, layers)
    _draw_inputs(inputs, layers)
    inputs.set_xlim(-0.6, len(layers) - 0.4)
    inputs.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=90, fontsize=8)
    for label, layer in zip(inputs.get_xticklabels(), layers, strict=True):
        if layer.name in verdict.worst:
            label.set(color=_COLOURS['!!'], fontweight='bold')
    lines = [
        f'{prediction.granularity} int8: {prediction.level.upper()}, {prediction.drop:.2f} points lost '
        f'({prediction.low:.1f} to {prediction.high:.1f})'
        for prediction in verdict.predictions
    ]
    fp32 = '' if analysis.accuracy is None else f'fp32 {analysis.accuracy:.2f}%; '
    figure.suptitle('\n'.join([f'{fp32}{analysis.num_images} images', *lines]), fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format='png')


def _draw_effect(ax: Any, layers: tuple[Layer, ...]) -> None:
    marks = [find_mark(layer) for layer in layers]
    ax.bar(range(len(layers)), [layer.effect for layer in layers], color=[_COLOURS[mark] for mark in marks])
    _draw_limits(ax)
    handles = [Patch(color=_COLOURS[mark], label=_TITLES[mark]) for mark in MARKS]
    ax.legend(handles=handles, fontsize=8, ncols=3, loc='upper right')
    ax.margins(y=0.2)
    _finish(ax, "harm: logits' signal over noise with this layer alone in per-tensor int8 (low is bad)", 'dB')


def _draw_output(ax: Any, layers: tuple[Layer, ...]) -> None:
    for granularity, shift in _SHIFTS.items():
        values = [layer.output_snr[granularity] for layer in layers]
        colours = [_COLOURS[next(mark for mark, limit in MARKS.items() if value < limit)] for value in values]
        positions = [position + shift for position in range(len(layers))]
        ax.bar(positions, values, 0.38, color=colours, hatch=_HATCHES[granularity], edgecolor='white', linewidth=0)
    _draw_limits(ax)
    handles = [Patch(facecolor='grey', edgecolor='white', hatch=hatch, label=g) for g, hatch in _HATCHES.items()]
    ax.legend(handles=handles, fontsize=8, ncols=2, loc='upper right')
    ax.margins(y=0.2)
    _finish(ax, "the layer's output: signal over noise, a quarter of the channels are below", 'dB')


def _draw_channels(figure: Figure, ax: Any, layers: tuple[Layer, ...]) -> None:
    # int8 has 7 bits and a sign; half the range is one bit less
    columns = [[_count_bits(value, layer.kernel.abs_max) for value in layer.kernel.channel_maxima] for layer in layers]
    rows = list(zip(*columns, strict=True))
    image = ax.imshow(rows, cmap=_BITS, vmin=0, vmax=7, aspect='auto', origin='lower', interpolation='nearest')
    last = len(rows) - 1
    ax.set_yticks([0, last / 2, last], ['smallest', 'median', 'largest'], fontsize=8)
    figure.colorbar(image, ax=ax, label='bits', pad=0.01)
    _finish(ax, 'weights: bits of a per-tensor scale that the output channels use (red: none)', 'channel')


def _draw_inputs(ax: Any, layers: tuple[Layer, ...]) -> None:
    lost = [8 - _count_bits(1, layer.inputs.outlier_ratio, 8) for layer in layers]
    colours = [_COLOURS['!!' if value >= 3 else '!' if value >= 2 else ''] for value in lost]
    ax.bar(range(len(layers)), lost, color=colours)
    ax.set_ylim(0, max(4.0, 1.1 * max(lost)))
    _finish(ax, 'inputs: bits of the range that serve one value in ten thousand', 'bits')


def _draw_limits(ax: Any) -> None:
    for mark, limit in list(MARKS.items())[:-1]:
        ax.axhline(limit, color=_COLOURS[mark], linewidth=0.8, linestyle='--')


def _count_bits(value: float, largest: float, bits: int = 7) -> float:
    return max(0.0, bits + math.log2(value / largest)) if value > 0 else 0.0


def _finish(ax: Any, title: str, unit: str) -> None:
    ax.set_title(title, fontsize=10, loc='left')
    ax.set_ylabel(unit, fontsize=9)
    ax.spines[['top', 'right']].set_visible(False)

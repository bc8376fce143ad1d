"""Curves as SVG that stands in the page: its texts have the page's font, and its colours are those of the page."""

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# The colours in which matplotlib draws, and the variables of the page's style that take their place. So one drawing
# serves a light page, a dark one and paper.
_VARIABLES = {'#1c2024': '--ink', '#5b6470': '--muted', '#d9dee4': '--line', '#0b5cad': '--blue'}
_INK, _MUTED, _LINE, _SERIES = _VARIABLES
_SETTINGS: Any = {
    'svg.fonttype': 'none',
    'font.size': 10,
    'axes.edgecolor': _LINE,
    'axes.labelcolor': _MUTED,
    'xtick.labelcolor': _MUTED,
    'ytick.labelcolor': _MUTED,
    'grid.color': _LINE,
    'text.color': _INK,
}
# Width and height; and the number of points up to which each has a mark.
_INCHES = (4.2, 2.5)
_MAX_MARKS = 25
_SVG = 'http://www.w3.org/2000/svg'


def draw_curve(name: str, x: Sequence[float], y: Sequence[float], xlabel: str, description: str) -> str:
    """Draw a curve over the epochs of a training.

    Args:
        name: Name of the figure, from which the ids in the drawing are made.
        x: Numbers of the epochs.
        y: Their values.
        xlabel: Title of the horizontal axis.
        description: What the figure shows, for those who can't see it.

    Returns:
        str: An ``svg`` element.
    """
    with matplotlib.rc_context({**_SETTINGS, 'svg.hashsalt': name}):
        figure = Figure(figsize=_INCHES, layout='constrained')
        FigureCanvasSVG(figure)
        ax = figure.subplots()
        ax.plot(x, y, color=_SERIES, linewidth=2, marker='o' if len(x) <= _MAX_MARKS else '', markersize=4)
        ax.set_xlabel(xlabel)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(axis='y', linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[['top', 'right', 'left']].set_visible(False)
        ax.tick_params(length=0)
        buffer = io.BytesIO()
        metadata = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(buffer, format='svg', transparent=True, metadata=metadata)
    return _adapt(buffer.getvalue(), description)


def _adapt(drawing: bytes, description: str) -> str:
    """Let a drawing of matplotlib take the size, the font and the colours of the page around it."""
    ElementTree.register_namespace('', _SVG)
    ElementTree.register_namespace('xlink', 'http://www.w3.org/1999/xlink')
    root: Any = ElementTree.fromstring(drawing)
    for name in ('width', 'height'):
        del root.attrib[name]
    root.attrib |= {'role': 'img', 'aria-label': description}
    # all drawings have the same names of their parts, and a page must have each once
    used = set(re.findall(rb'#([\w-]+)', drawing))
    for definitions in root.findall(f'{{{_SVG}}}defs'):
        for style in definitions.findall(f'{{{_SVG}}}style'):
            definitions.remove(style)  # it would hold for the whole page, which has it in its own style
    for element in root.iter():
        if element.get('id', '').encode() not in used:
            element.attrib.pop('id', None)
        if 'style' in element.attrib:
            element.attrib['style'] = _use_variables(element.attrib['style'])
    return ElementTree.tostring(root, encoding='unicode')


def _use_variables(style: str) -> str:
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, f'var({variable})')
    return style

"""The picture of the switch in README.md: a block while training and in deploy form, and the kernels of both.

The kernels are those that the switch computes for a block of four channels.

    python -m studies.switch_picture
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from torch import Tensor, nn

from mmrepvgg import RepVGGBlock
from mmrepvgg.checkpoints.writing import replacing
from mmrepvgg.reparam.branches import find_branch_kernels

FOLDER = Path(__file__).parents[1] / 'docs'

_NUM_CHANNELS = 4
_CELL = 0.115  # edge of a weight
_GAP = 0.09  # between two kernels of a pair of channels
_TILE = 3 * _CELL + _GAP
_SHEET = _NUM_CHANNELS * _TILE - _GAP
_SIZE = (10.15, 5.35)
_TEXT, _SMALL = 11, 9.5
_TIMES = '\u00d7'


@dataclass(frozen=True)
class Theme:
    """The colours of a picture.

    Attributes:
        ink: Of texts and lines.
        muted: Of remarks.
        box: Of the layers.
        weights: Of negative weights, of zero, and of positive ones.
    """

    ink: str
    muted: str
    box: str
    weights: tuple[str, str, str]


THEMES = {
    'light': Theme('#1f2328', '#59636e', '#eef1f4', ('#0b5cad', '#eceff2', '#c2500c')),
    'dark': Theme('#f0f6fc', '#9aa4af', '#262c36', ('#4aa3ff', '#2b323c', '#ffa657')),
}


def draw(theme: Theme, path: Path) -> None:
    """Write the picture as SVG; the same versions of matplotlib and torch write the same file."""
    # texts as shapes: they look the same everywhere
    with matplotlib.rc_context({'svg.hashsalt': 'switch', 'svg.fonttype': 'path', 'font.size': _TEXT}):
        figure = Figure(figsize=_SIZE)
        FigureCanvasSVG(figure)
        canvas = Canvas(figure.add_axes((0, 0, 1, 1)), theme)
        canvas.draw_train_form()
        canvas.draw_deploy_form()
        canvas.draw_kernels()
        with replacing(path) as temporary:
            metadata = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
            figure.savefig(temporary, format='svg', transparent=True, metadata=metadata)


class Canvas:
    """A picture in inches, from the lower left corner.

    Args:
        ax: Axes that fill the figure.
        theme: Colours.
    """

    def __init__(self, ax: Any, theme: Theme):
        self.ax, self.theme = ax, theme
        ax.set(xlim=(0, _SIZE[0]), ylim=(0, _SIZE[1]), aspect='equal')
        ax.axis('off')
        colours = LinearSegmentedColormap.from_list('weights', theme.weights)
        self._colour: Any = matplotlib.cm.ScalarMappable(Normalize(-1, 1), colours).to_rgba

    def draw_train_form(self) -> None:
        """Three branches, each with a batch norm; their sum; the activation."""
        self._title(0.35, 'While training: three branches')
        middle = 3.85
        self._text(0.45, middle, 'x')
        for y, name in ((middle + 0.75, f'3{_TIMES}3 conv'), (middle, f'1{_TIMES}1 conv'), (middle - 0.75, 'identity')):
            start = ((0.62, middle), (1.0, middle), (1.0, y))
            if name == 'identity':
                self._line(*start, (2.85, y))
                self.ax.text(2.05, y + 0.09, name, ha='center', color=self.theme.muted, fontsize=_SMALL)
            else:
                self._line(*start, (1.4, y))
                self._box(2.05, y, 1.3, name)
                self._arrow((2.7, y), (2.85, y))
            self._box(3.2, y, 0.7, 'BN')
            if y == middle:
                self._arrow((3.55, y), (4.1, y))
            else:
                self._line((3.55, y), (4.27, y), head=False)
                self._arrow((4.27, y), (4.27, middle + (0.17 if y > middle else -0.17)))
        self.ax.add_patch(Circle((4.27, middle), 0.17, facecolor=self.theme.box, edgecolor=self.theme.ink))
        self._text(4.27, middle - 0.012, '+')
        self._arrow((4.44, middle), (4.7, middle))
        self._box(5.1, middle, 0.8, 'ReLU')

    def draw_deploy_form(self) -> None:
        """One convolution and the activation."""
        middle = 3.85
        self._arrow((5.8, middle), (6.6, middle), width=2)
        self._text(6.2, middle + 0.24, 'switch')
        self.ax.text(
            6.2, middle - 0.2, 'the same\nfunction', ha='center', va='top', color=self.theme.muted, fontsize=_SMALL
        )
        self._title(6.82, 'When shipped: one convolution')
        self._text(6.95, middle, 'x')
        self._arrow((7.12, middle), (7.45, middle))
        self._box(8.15, middle, 1.4, f'3{_TIMES}3 conv')
        self._arrow((8.85, middle), (9.15, middle))
        self._box(9.55, middle, 0.8, 'ReLU')

    def draw_kernels(self) -> None:
        """The kernel of each branch, with its batch norm in it, and their sum."""
        kernels = make_kernels()
        whole: Any = sum(kernels.values())
        limit = max(kernel.abs().max().item() for kernel in (whole, *kernels.values()))
        bottom, places = 0.62, (0.35, 2.75, 5.15, 7.64)
        remarks = (
            f'3{_TIMES}3 kernel,\nits BN folded in',
            f'1{_TIMES}1 kernel, likewise:\nzeros around it',
            'identity, likewise:\nthe diagonal',
            f'one 3{_TIMES}3 kernel;\nthe biases add up, too',
        )
        for x, sign in zip((2.33, 4.73, 7.17), '++=', strict=True):
            self.ax.text(x, bottom + _SHEET / 2, sign, ha='center', va='center', color=self.theme.muted, fontsize=20)
        for x, kernel, remark in zip(places, (*kernels.values(), whole), remarks, strict=True):
            self._draw_kernel(kernel / limit, x, bottom)
            self.ax.text(
                x + _SHEET / 2, bottom - 0.13, remark, ha='center', va='top', color=self.theme.muted, fontsize=_SMALL
            )

    def _draw_kernel(self, kernel: Tensor, x: float, y: float) -> None:
        """A row of tiles for each output channel, a column for each input channel."""
        places = [(x + j * _TILE, y + i * _TILE) for i in range(_NUM_CHANNELS) for j in range(_NUM_CHANNELS)]
        self._fill([(place, self._colour(0)) for place in places], 3 * _CELL)
        self._fill(list(self._iterate_cells(kernel, x, y)), _CELL)

    def _fill(self, squares: list[tuple[tuple[float, float], Any]], edge: float) -> None:
        patches = [Rectangle(place, edge, edge) for place, _ in squares]
        self.ax.add_collection(PatchCollection(patches, facecolors=[colour for _, colour in squares], linewidths=0))

    def _iterate_cells(self, kernel: Tensor, x: float, y: float) -> Iterator[tuple[tuple[float, float], Any]]:
        for output, row in enumerate(kernel.tolist()):
            for channel, tile in enumerate(row):
                for i, weights in enumerate(tile):
                    for j, weight in enumerate(weights):
                        if abs(weight) < 1e-9:
                            continue
                        left = x + channel * _TILE + j * _CELL
                        top = y + _SHEET - output * _TILE - (i + 1) * _CELL
                        yield (left, top), self._colour(weight)

    def _title(self, x: float, text: str) -> None:
        self.ax.text(x, 5.1, text, va='center', color=self.theme.ink, fontsize=12.5, fontweight='bold')

    def _text(self, x: float, y: float, text: str) -> None:
        self.ax.text(x, y, text, ha='center', va='center_baseline', color=self.theme.ink)

    def _box(self, x: float, y: float, width: float, text: str) -> None:
        style = 'round,pad=0,rounding_size=0.08'
        corner = (x - width / 2, y - 0.22)
        self.ax.add_patch(
            FancyBboxPatch(corner, width, 0.44, boxstyle=style, facecolor=self.theme.box, edgecolor=self.theme.ink)
        )
        self._text(x, y, text)

    def _line(self, *points: tuple[float, float], head: bool = True) -> None:
        x, y = zip(*points, strict=True)
        self.ax.plot(x, y, color=self.theme.ink, linewidth=1.2, solid_capstyle='butt', solid_joinstyle='miter')
        if head:
            self._arrow(points[-2], points[-1])

    def _arrow(self, start: tuple[float, float], end: tuple[float, float], width: float = 1.2) -> None:
        self.ax.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle='-|>', mutation_scale=8 + 3 * width, shrinkA=0, shrinkB=0,
                color=self.theme.ink, linewidth=width, joinstyle='miter',
            )
        )  # fmt: skip


def make_kernels() -> dict[str, Tensor]:
    """What the branches of a small block add to its equivalent kernel; their sizes are chosen so that all are seen."""
    generator = torch.Generator().manual_seed(2)
    block: Any = RepVGGBlock(_NUM_CHANNELS, _NUM_CHANNELS).eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, -1, 1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
    nn.init.uniform_(block.branch_norm.weight, 0.9, 1.4, generator=generator)
    return find_branch_kernels(block)


if __name__ == '__main__':
    for name, theme in THEMES.items():
        draw(theme, FOLDER / f'switch-{name}.svg')
        print(FOLDER / f'switch-{name}.svg')

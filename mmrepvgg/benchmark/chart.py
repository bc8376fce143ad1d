"""The bar chart of a run."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..checkpoints.writing import replacing, require_writable
from .report import describe_environment
from .results import Report, Row

# A colour for each network, from Okabe and Ito's palette, which colour-blind people can read.
# Networks that never stand in one chart have the same: deploy forms, and train forms of the same project.
_COLOURS = {
    'deploy': '#0072B2',
    'train': '#56B4E9',
    'tested': '#CC79A7',
    'mmpretrain': '#E69F00',
    'timm': '#009E73',
    'train-merged': '#F0E442',
    'train-mmpretrain': '#E69F00',
    'train-timm': '#009E73',
    'train-official': '#D55E00',
    'resnet50': '#999999',
    'resnet101': '#555555',
}
_INCHES_PER_BAR = 0.24


def draw_chart(report: Report, path: str | Path) -> None:
    """Write a PNG with a panel for each model, number of threads and batch size, and a bar with quartiles for each row.

    Raises:
        ValueError: If no row has been timed.
    """
    require_writable(path)
    panels: dict[str, list[Row]] = {}
    for row in report.rows:
        if row.speed:
            panels.setdefault(_name_panel(row), []).append(row)
    if not panels:
        raise ValueError('no row has been timed, so there is nothing to draw')
    heights = [len(rows) + 1.5 for rows in panels.values()]
    figure = Figure(figsize=(10, _INCHES_PER_BAR * sum(heights) + 1.6), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        speeds = [row.speed for row in rows if row.speed]
        medians = [speed.median for speed in speeds]
        errors = [[s.median - s.low for s in speeds], [s.high - s.median for s in speeds]]
        positions = range(len(rows))
        names = [f'{row.case.title}, {row.case.mode_title}' for row in rows]
        ax.barh(positions, medians, xerr=errors, color=[_COLOURS[row.case.network] for row in rows], capsize=2)
        ax.set_yticks(positions, names, fontsize=8)
        ax.margins(y=0.01)
        ax.invert_yaxis()
        right = max(speed.high for speed in speeds)
        ax.set_xlim(0, 1.12 * right)
        for position, speed in zip(positions, speeds, strict=True):
            ax.text(speed.high + 0.01 * right, position, f'{speed.median:.3g}', va='center', fontsize=8)
        ax.set_title(title, fontsize=10, loc='left')
        ax.spines[['top', 'right']].set_visible(False)
    size = report.settings['input_size']
    label = f'images per second at {size} x {size} pixels: median and quartiles; each panel has its own scale'
    figure.supxlabel(label, fontsize=9)
    environment, _, versions = describe_environment(report.machine, report.versions).rpartition('; ')
    figure.suptitle(f'{environment}\n{versions}', fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format='png')


def _name_panel(row: Row) -> str:
    model = f'RepVGG-{row.case.arch}' if row.case.arch else row.case.title
    return f'{model}, {row.case.place_title}'

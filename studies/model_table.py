"""Write the model table of configs/repvgg/README.md from configs/repvgg/metafile.yml.

example: python tools/update_model_table.py
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmrepvgg.checkpoints.writing import replacing
from mmrepvgg.commands.files import require_file
from mmrepvgg.tables import format_table

BEGIN = '<!-- model table: written by tools/update_model_table.py from metafile.yml -->'
END = '<!-- end of model table -->'

# Columns of accuracies: what a result's source begins with, up to its comma.
SOURCES = ('RepVGG authors', 'mmpretrain 1.x', 'mmcls 0.x', 'timm', 'MindCV')


def update_table(readme: str | Path, metafile: str | Path) -> bool:
    """Write the table between the marker comments of ``readme``.

    Returns:
        bool: Whether anything changed.

    Raises:
        ValueError: If the markers are missing, or a result names a source that has no column.
    """
    old = Path(readme).read_text()
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{readme} must have the lines {BEGIN} and {END}; put them where the table belongs')
    models = yaml.safe_load(Path(metafile).read_text())['Models']
    new = f'{before}{BEGIN}\n{render_table(models)}{END}{after}'
    if new == old:
        return False
    with replacing(readme) as temporary:
        temporary.write_text(new)
    return True


def render_table(models: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown table of ``models``, entries of a model-index file."""
    head = ('model', 'parameters (M)', 'GMACs', 'epochs', *SOURCES, 'weights')
    return format_table(head, map(_render_row, models), left=len(head)) + '\n'


def _render_row(model: Mapping[str, Any]) -> list[str]:
    cost = model['Metadata']
    accuracies: dict[str, list[str]] = {source: [] for source in SOURCES}
    for result in model.get('Results') or ():
        source = result['Metrics']['Source'].split(',')[0]
        if source not in accuracies:
            raise ValueError(f'{model["Name"]}: the source must begin with one of {", ".join(SOURCES)}, got {source}')
        accuracies[source].append(_render_accuracy(result['Metrics'], cost['Epochs']))
    weights = {'OpenMMLab': model.get('Weights'), 'converted': model.get('Converted Weights')}
    return [
        f'[{model["Name"]}]({Path(model["Config"]).name})',
        f'{cost["Parameters"] / 1e6:.2f} / {cost["Deploy Parameters"] / 1e6:.2f}',
        f'{cost["FLOPs"] / 1e9:.3f} / {cost["Deploy FLOPs"] / 1e9:.3f}',
        str(cost['Epochs']),
        *('<br>'.join(found) or '-' for found in accuracies.values()),
        ', '.join(f'[{name}]({address})' for name, address in weights.items() if address) or '-',
    ]


def _render_accuracy(metrics: Mapping[str, Any], epochs: int) -> str:
    text = f'{metrics["Top 1 Accuracy"]:.2f}'
    if 'Top 5 Accuracy' in metrics:
        text += f' / {metrics["Top 5 Accuracy"]:.2f}'
    if 'Pixels' in metrics:
        text += f' @{metrics["Pixels"]}'
    if metrics.get('Epochs', epochs) != epochs:
        text += f' ({metrics["Epochs"]} epochs)'
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--readme', default='configs/repvgg/README.md', help='file to update (default: %(default)s)')
    parser.add_argument(
        '--metafile', default='configs/repvgg/metafile.yml', help='model-index file to read (default: %(default)s)'
    )


def run(args: argparse.Namespace) -> None:
    require_file(args.readme)
    require_file(args.metafile)
    changed = update_table(args.readme, args.metafile)
    print(f'{args.readme}: {"updated" if changed else "up to date"}')

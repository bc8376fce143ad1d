"""Fuse networks of other projects, with random weights, and print what that does: the table of docs/any-model.md.

example: python tools/any_model.py
         python tools/any_model.py --families mobileone fastvit --repeats 100
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from mmrepvgg.commands.arguments import positive_int
from mmrepvgg.progress import track
from mmrepvgg.tables import format_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--families', nargs='+', metavar='NAME', help='parts of names (default: all families)')
    parser.add_argument('--repeats', type=positive_int, default=30, help='timed runs of each form (default: 30)')


def run(args: argparse.Namespace) -> None:
    print(render(args.families, args.repeats, image=224))


def render(names: Sequence[str] | None, repeats: int, image: int) -> str:
    """The table, and what was measured on images of ``image`` pixels in height and width."""
    from .families import FAMILIES
    from .measuring import measure

    wanted = [name.lower() for name in names or ('',)]
    families = [family for family in FAMILIES if any(name in family.name.lower() for name in wanted)]
    if not families:
        known = ', '.join(sorted({family.name for family in FAMILIES}))
        raise ValueError(f'`families` must be parts of names of {known}, got {names}')
    there = [family for family in families if family.is_there]
    rows = [(family, measure(family, image, repeats)) for family in track(there, 'fusing')]
    return f'{render_table(rows)}\n\n{_describe(repeats, image)}'


def render_table(rows: Iterable[tuple[Any, Any]]) -> str:
    """The table of families and their measurements."""
    columns = (
        *('network', 'code', 'parameters, M', 'convolutions', 'norms left', 'parallel branches left'),
        *('difference, fp32', 'difference, fp64', 'ms', 'speed'),
    )
    cells = (
        (
            family.name,
            family.source,
            ' → '.join(f'{number / 1e6:.2f}' for number in found.params),
            ' → '.join(map(str, found.report.num_convs)),
            found.report.num_norms_left,
            found.report.num_branches_left,
            f'{found.difference:.1e}',
            f'{found.difference64:.1e}',
            ' → '.join(f'{1e3 * seconds:.1f}' for seconds in found.times),
            f'{found.times[0] / found.times[1]:.2f}x',
        )
        for family, found in rows
    )
    return format_table(columns, cells, left=2)


def _describe(repeats: int, image: int) -> str:
    import torch

    from mmrepvgg.benchmark.machine import describe_machine, describe_versions

    machine = describe_machine()
    versions = describe_versions(('torch', 'timm', 'mmpretrain', 'segmentation-models-pytorch'))
    return (
        f'Random weights and statistics, {image} x {image} pixels. Differences are relative to the largest output. ms: '
        f'median of {repeats} runs of one image, both forms in turn, float32, {torch.get_num_threads()} thread(s). '
        f'{machine["cpu"]}, {machine["cores"]} cores, {", ".join(machine["instructions"])}. '
        f'{", ".join(f"{name} {version}" for name, version in versions.items())}.'
    )

"""Measure how much the two forms of random blocks and networks differ, in float64 and in the precisions that are used.

example: python tools/exactness.py --cases 2000
"""

import argparse
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from statistics import quantiles
from typing import Any

from mmrepvgg.commands.arguments import positive_int
from mmrepvgg.progress import track
from mmrepvgg.tables import format_table

# The rows: precision of the computation, and the form that is compared with the train form in float64.
ROWS = (
    ('float64', 'deploy'),
    *((dtype, form) for dtype in ('float32', 'bfloat16', 'float16') for form in ('train', 'deploy')),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--cases', type=positive_int, default=2000, help='random blocks (default: 2000)')
    parser.add_argument('--networks', type=positive_int, default=200, help='random networks (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the cases (default: 0)')


def run(args: argparse.Namespace) -> None:
    print(render(args.cases, args.networks, args.seed))


def render(num_blocks: int, num_networks: int, seed: int) -> str:
    """The tables: blocks with usual statistics, blocks with all that can occur, and networks."""
    from .cases import BLOCKS, NETWORKS, make_block, make_network, split_block

    def sum_block(block: Any, x: Any) -> Any:
        return split_block(block, x)[0]

    def run_network(network: Any, x: Any) -> Any:
        return network(x)[-1]

    usual = BLOCKS | dict(variances=('usual',), eps=(1e-5,), gains=('signed',), norm=('BN',))
    parts = (
        ('blocks, usual statistics', usual, make_block, sum_block, num_blocks),
        ('blocks, variances from 1e-12 to 1e6', BLOCKS, make_block, sum_block, num_blocks),
        ('networks', NETWORKS, make_network, run_network, num_networks),
    )
    rows = []
    for title, choices, make, compute, number in parts:
        differences = _measure(choices, make, compute, number, seed)
        rows += [[title, *row] for row in _summarise(differences)]
    columns = ['cases', 'computed in', 'form', 'compared', 'median', '99%', 'largest', 'overflow']
    return (
        f'{format_table(columns, rows, left=3)}\n\n'
        'The largest difference from the train form in float64, relative to its largest output (of a block: before SE '
        'and activation). The weights are float32; the switch is made in float64, and rounded to float32 once.'
    )


def _measure(
    choices: Mapping[str, Any],
    make: Callable[[Mapping[str, Any]], tuple[Any, Any]],
    compute: Callable[[Any, Any], Any],
    number: int,
    seed: int,
) -> dict[tuple[str, str], list[float]]:
    """The differences by row; not finite where numbers overflow."""
    import torch

    from mmrepvgg import reparameterize

    from .cases import draw

    differences: dict[tuple[str, str], list[float]] = {row: [] for row in ROWS}
    choose = random.Random(seed).choice
    for _ in track(range(number), 'comparing forms', number):
        trained, x = make(draw(choices, choose))
        trained, x = trained.float(), x.float()
        exact = copy.deepcopy(trained).double()
        with torch.no_grad():
            expected = compute(exact, x.double())
            forms = {'train': trained, 'deploy': reparameterize(trained)}
            for (name, form), found in differences.items():
                dtype = getattr(torch, name)
                if dtype == torch.float64:
                    actual = compute(reparameterize(exact), x.double())
                else:
                    actual = compute(copy.deepcopy(forms[form]).to(dtype), x.to(dtype)).double()
                largest = expected.abs().max()
                if largest > 0:
                    found.append(((actual - expected).abs().max() / largest).item())
    return differences


def _summarise(differences: Mapping[tuple[str, str], list[float]]) -> Iterator[list[object]]:
    for (dtype, form), found in differences.items():
        finite = [value for value in found if value < float('inf')]
        cuts = quantiles(finite, n=100, method='inclusive')
        numbers = (f'{value:.1e}' for value in (cuts[49], cuts[98], max(finite)))
        yield [dtype, form, len(found), *numbers, len(found) - len(finite)]

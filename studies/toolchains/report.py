"""The study's table, in Markdown."""

import platform
from collections.abc import Mapping, Sequence

from mmrepvgg.tables import format_table

from .files import FORMS
from .run import Result, Run
from .toolchains import Toolchain


def format_report(results: Sequence[Result], missing: Mapping[Toolchain, str]) -> str:
    """The table of accuracies, the versions of the toolchains, and those that were not run.

    Args:
        results: The results.
        missing: Reasons why toolchains were not run.
    """
    cells: dict[tuple[str, str], dict[str, list[str]]] = {}
    for result in results:
        run = result.run
        row = cells.setdefault((run.environment.toolchain.title, run.mode), {})
        row.setdefault(run.model, []).append(_format(result))
    models = dict.fromkeys(result.run.model for result in results)
    table = format_table(
        ['toolchain', 'weights', *models],
        [[*row, *(' -> '.join(accuracies[model]) for model in models)] for row, accuracies in cells.items()],
        left=2,
    )
    environments = dict.fromkeys(_describe(result.run) for result in results)
    return '\n'.join(
        [
            f'Top-1 in percent on the test images: {" -> ".join(FORMS)}.',
            '',
            table,
            '',
            f'Python {platform.python_version()}; {"; ".join(environments)}.',
            *(f'{toolchain.title} was not run: {reason}.' for toolchain, reason in missing.items()),
        ]
    )


def _format(result: Result) -> str:
    return 'failed' if result.accuracy is None else f'{result.accuracy:.2f}'


def _describe(run: Run) -> str:
    return ', '.join(f'{name} {version}' for name, version in run.environment.versions.items())

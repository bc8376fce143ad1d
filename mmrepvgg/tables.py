"""Markdown tables. Imports no torch."""

from collections.abc import Iterable, Iterator, Sequence


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """A Markdown table whose columns are aligned, so that it can be read in a terminal.

    Args:
        columns: The headings.
        rows: Cells, one for each column; whatever they are, ``str`` of them is shown.
        left: How many columns are aligned to the left; the others, numbers as a rule, to the right.
    """
    cells = [list(map(str, columns)), *(list(map(str, row)) for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(_iterate_lines(cells, widths, left))


def _iterate_lines(cells: Sequence[Sequence[str]], widths: Sequence[int], left: int) -> Iterator[str]:
    head, *rows = (
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in cells
    )
    yield f'| {" | ".join(head)} |'
    yield f'|{"|".join("-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths))}|'
    yield from (f'| {" | ".join(row)} |' for row in rows)

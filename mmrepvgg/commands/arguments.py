"""The kinds of arguments. Imports no torch, so that usage errors are fast."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def add_output(
    parser: argparse.ArgumentParser, name: str, endings: Sequence[str], help: str, metavar: str | None = None
) -> None:
    """Add an argument for a file to write, which must have one of these endings."""

    def check(text: str) -> Path:
        if Path(text).suffix not in endings:
            raise argparse.ArgumentTypeError(f'must end in {list_endings(endings)}, got {text!r}')
        return Path(text)

    parser.add_argument(name, type=check, metavar=metavar, help=f'{help} ({list_endings(endings)})')


def list_endings(endings: Sequence[str]) -> str:
    """Join endings as in ``.a, .b or .c``."""
    *others, last = endings
    return f'{", ".join(others)} or {last}' if others else last


def add_size(parser: argparse.ArgumentParser, option: str, help: str, default: tuple[int, int] | None = None) -> None:
    """Add an option for a height and a width, or one number for both."""
    parser.add_argument(
        option, nargs='+', type=positive_int, action=_Size, default=default, metavar='PIXELS', help=help
    )


class _Size(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if len(values) > 2:
            parser.error(f'{option} takes one number or two, height and width, got {len(values)}')
        setattr(namespace, self.dest, (values[0], values[-1]))


def add_choices(
    parser: argparse.ArgumentParser, option: str, allowed: Iterable[str], default: Iterable[str], help: str
) -> None:
    """Add an option for one or more of the allowed values."""
    allowed, default = list(allowed), list(default)
    shown = 'all' if default == allowed else ' '.join(default)
    parser.add_argument(
        option,
        nargs='+',
        choices=allowed,
        default=default,
        metavar=option.removeprefix('--').removesuffix('s').upper(),
        help=f'{help}: any of {", ".join(allowed)} (default: {shown})',
    )


def positive_int(text: str) -> int:
    """Parse a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 1, got {text!r}')
    return int(text)


def positive_float(text: str) -> float:
    """Parse a tolerance."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:  # true for NaN too
        raise argparse.ArgumentTypeError(f'must be a number greater than 0, got {text!r}')
    return value

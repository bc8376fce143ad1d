"""The command ``mmrepvgg``: it finds one of the commands and runs it."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from .running import ending_with_its_reader, run
from .table import COMMANDS

_DESCRIPTION = """RepVGG for OpenMMLab: train with branches, ship a plain stack of 3x3 convolutions.

commands (mmrepvgg COMMAND --help shows the arguments of one, and an example):
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command that the first argument names; without one, list the commands."""
    argv = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    lines = [f'  {command.name:<{width}}  {command.summary}' for command in COMMANDS.values()]
    parser = argparse.ArgumentParser(
        prog='mmrepvgg',
        usage='mmrepvgg [-h] [--version] COMMAND ...',
        description=_DESCRIPTION + '\n'.join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmrepvgg {__version__}')
    parser.add_argument('command', nargs='?', help=argparse.SUPPRESS)
    with ending_with_its_reader():
        name = parser.parse_args(argv[:1]).command
        if name is None:
            parser.print_help()
            sys.exit(0)
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f'did you mean {near[0]}?' if near else f'it must be one of {", ".join(COMMANDS)}'
        parser.error(f'there is no command {name!r}; {hint}')
    run(COMMANDS[name].load(), f'mmrepvgg {name}', argv[1:])

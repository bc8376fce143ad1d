"""Say what is installed, what this machine can do, and what is wrong. Put what it prints into a bug report.

Everything is tried: packages are imported, in processes of their own, and a small network is switched. The exit status
is 0 if nothing is wrong, and 1 otherwise.

example: mmrepvgg doctor --json > environment.json
"""

import argparse
import sys
from contextlib import nullcontext
from importlib.util import find_spec

from ..environment.examination import examine_environment
from ..environment.report import format_environment, to_json
from ..progress import working


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', action='store_true', help='print everything as JSON')


def run(args: argparse.Namespace) -> None:
    # progress is shown by a package that may be missing
    with working('trying what is installed') if find_spec('rich') else nullcontext():
        environment = examine_environment()
    print(to_json(environment) if args.json else format_environment(environment))
    if environment.problems:
        sys.exit(1)

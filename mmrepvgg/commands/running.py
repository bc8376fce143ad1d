"""The run of a command. The exit status is 0 after success, 2 for wrong usage, and 1 for an error in one line."""

import argparse
import atexit
import gc
import io
import os
import select
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TextIO

from ..printable import make_printable
from .config_options import names_model
from .errors import AddArguments, UsageError, describe, translate


def run(command: ModuleType, prog: str | None = None, argv: Sequence[str] | None = None) -> NoReturn:
    """Parse arguments, run a command, and exit.

    Args:
        command: Module with ``add_arguments(parser)``, ``run(args)``, and a docstring, which is the help. ``MEMORY``,
            if it has that, names the settings to lower where there is not enough memory.
        prog: Name of the command in messages. Default: name of the script.
        argv: Arguments of the command. Default: arguments of the script.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    add_arguments = partial(_add_arguments, command, names_model(sys.argv[1:] if argv is None else argv))
    add_arguments(parser)
    with ending_with_its_reader():
        args = parser.parse_args(argv)
    args.command_line = shlex.join([*prog.split(), *argv] if prog and argv is not None else ['python', *sys.argv])
    _prepare_process()
    _translate_warnings(parser.prog, add_arguments)
    try:
        with ending_with_its_reader():
            command.run(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except UsageError as error:
        parser.error(translate(str(error), add_arguments))
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        line = describe(error, add_arguments, getattr(command, 'MEMORY', ''))
        print(f'{parser.prog}: error: {line}', file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _add_arguments(command: ModuleType, by_model: bool, parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(by_model=by_model)  # the command's functions look for it
    command.add_arguments(parser)


@contextmanager
def ending_with_its_reader() -> Iterator[None]:
    """End quietly, as the tools of the system do, if what reads stdout (``head``) ends first."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _has_lost_its_reader(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
        sys.exit(128 + signal.SIGPIPE)


def _has_lost_its_reader(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _prepare_process() -> None:
    # some versions of mmengine would load a checkpoint in an unsafe way, and run code in it
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    # at its end Python looks for cycles among all that was imported, for a second
    atexit.register(gc.freeze)
    # OpenCV's own words about damaged images; this package names them
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    # names of files may have characters that the terminal's encoding has not
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    # mmengine imports it to find a base config of a package; setup.py keeps setuptools at a version that has it
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated as an API', UserWarning)
    # mmengine says in every process of a run that it has one thread, as torchrun says once for all
    warnings.filterwarnings('ignore', 'Setting (OMP|MKL)_NUM_THREADS environment variable', UserWarning)
    # torch's own compiler calls it
    warnings.filterwarnings('ignore', '`torch._prims_common.check` is deprecated', FutureWarning)


def _translate_warnings(prog: str, add_arguments: AddArguments) -> None:
    """Show this package's own warnings as one line in the words of the command line."""
    plain = warnings.formatwarning

    def format_warning(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
        if Path(filename).is_relative_to(Path(__file__).parents[1]):
            return f'{prog}: warning: {make_printable(translate(str(message), add_arguments))}\n'
        return plain(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning

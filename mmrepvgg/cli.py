"""What the tools share: arguments, and errors as one line. Imports no torch, so that usage errors are fast."""

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .checkpoints.writing import require_writable

__all__ = ['require_writable']


def make_parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring: a first line, then examples as they stand."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    return parser


def add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        type=_check_option,
        default=[],
        help='change settings of the config, for example train_cfg.max_epochs=10 "model.backbone.strides=[1,2,2,2]"',
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run were started (torchrun: pytorch)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Options of the files that are made for runtimes: see :func:`mmrepvgg.runtimes.export.export_model`."""
    parser.add_argument(
        '--dynamic-batch',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='take any batch size (default), or with --no-dynamic-batch one only',
    )
    parser.add_argument('--batch-size', type=positive_int, help='that one batch size (default: 1)')
    parser.add_argument(
        '--with-preprocess',
        action='store_true',
        help='put normalisation and BGR to RGB inside: the file takes uint8 images (N, 3, H, W) as OpenCV reads them',
    )
    parser.add_argument('--softmax', action='store_true', help='give probabilities instead of logits')
    parser.add_argument('--ema', action='store_true', help='take the averaged (EMA) weights')


def check_file_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse, as wrong usage, options of :func:`add_file_options` that contradict each other."""
    if args.batch_size is not None and args.dynamic_batch:
        parser.error('--batch-size goes with --no-dynamic-batch')


def weights_file(name: str) -> Path:
    """Argument type of a checkpoint to write."""
    path = Path(name)
    if path.suffix not in ('.pth', '.pt'):
        raise argparse.ArgumentTypeError(f'must end in .pth or .pt, got {name!r}')
    return path


def positive_int(text: str) -> int:
    """Argument type of a count."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 1, got {text!r}')
    return int(text)


def positive_float(text: str) -> float:
    """Argument type of a tolerance."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:  # not <=, which NaN would pass
        raise argparse.ArgumentTypeError(f'must be a number greater than 0, got {text!r}')
    return value


def json_file(name: str) -> Path:
    """Argument type of a report to write."""
    path = Path(name)
    if path.suffix != '.json':
        raise argparse.ArgumentTypeError(f'must end in .json, got {name!r}')
    return path


def load_config(path: str, options: Sequence[str] = ()) -> Any:
    """Read a config file and change the settings in ``options``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it can't be read as a config.
    """
    require_file(path)
    from mmengine.config import Config, DictAction

    # mmengine's own syntax of values; parsed only now because mmengine imports torch
    values = argparse.ArgumentParser()
    values.add_argument('--cfg-options', nargs='*', action=DictAction, default={})
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(values.parse_args(['--cfg-options', *options]).cfg_options)
    except Exception as error:
        raise ValueError(f'{path} is no usable config: {type(error).__name__}: {error}') from error
    return cfg


def require_file(path: str | Path) -> None:
    """Say that a file is missing before the slow imports."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist' if not Path(path).exists() else f'{path} is not a file')


def run(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> NoReturn:
    """Parse the arguments, call ``main``, and exit: 0, or 1 with one line that says why; 2 for wrong usage."""
    args = parser.parse_args()
    # No library below may run what a checkpoint says: some versions of mmengine fall back to an unsafe load.
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    # names of files need not be in the terminal's encoding
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    # mmcv-lite says at each start what it leaves out, which nothing here needs
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    try:
        main(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f'{parser.prog}: error: {_describe(error)}', file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _describe(error: Exception) -> str:
    text = str(error)
    if 'Original Traceback' in text:  # a data loader's worker has put the whole of it into the message
        return text.strip().splitlines()[-1]
    text = ' '.join(text.split())
    # Our own errors say it all; of others the type is part of the message.
    own = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError)
    if type(error).__module__.startswith('mmrepvgg') or (type(error) in own and not getattr(error, 'errno', None)):
        return text
    return f'{type(error).__name__}: {text}'


def _check_option(option: str) -> str:
    key, separator, _ = option.partition('=')
    if not separator or not key:
        raise argparse.ArgumentTypeError(f'must be KEY=VALUE, got {option!r}')
    return option

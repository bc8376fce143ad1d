"""The arguments of several commands about the files that they write."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..runtimes.format import Format
from ..runtimes.table import find_format
from .arguments import positive_float, positive_int
from .errors import UsageError


def add_out(parser: argparse.ArgumentParser, formats: Iterable[Format]) -> None:
    """Add the positional OUT, a file in one of these formats. Its ending chooses the format."""
    endings = ', '.join(f'{" or ".join(row.suffixes)} ({row.name})' for row in formats)
    parser.add_argument('out', type=_exported_file, help=f'file to write: {endings}')


def _exported_file(text: str) -> Path:
    try:
        find_format(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add options for arguments that :func:`mmrepvgg.export_model` and :func:`mmrepvgg.quantize_model` share."""
    parser.add_argument(
        '--dynamic-batch',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='take any batch size (default), or with --no-dynamic-batch one only',
    )
    parser.add_argument('--batch-size', type=positive_int, help='the batch size with --no-dynamic-batch (default: 1)')
    parser.add_argument('--dynamic-size', action='store_true', help='take any height and width, too')
    parser.add_argument(
        '--with-preprocess',
        action='store_true',
        help='put normalisation and BGR to RGB inside: the file takes uint8 images (N, 3, H, W) as OpenCV reads them',
    )
    parser.add_argument('--softmax', action='store_true', help='give probabilities instead of logits')
    add_ema(parser)


def get_file_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of these options, as arguments of the library.

    Raises:
        UsageError: If the options contradict each other.
    """
    if args.batch_size is not None and args.dynamic_batch:
        raise UsageError('--batch-size goes with --no-dynamic-batch')
    names = ('dynamic_batch', 'dynamic_size', 'with_preprocess', 'softmax', 'ema')
    return dict(batch_size=args.batch_size or 1, **{name: getattr(args, name) for name in names})


def add_ema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--ema', action='store_true', help='take the averaged (EMA) weights')


def add_equalize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--equalize',
        action='store_true',
        help='rescale the channels, exactly, so that int8 with one scale a weight loses least, whatever quantizes the '
        'file later: by the images of --data, or else by the weights alone',
    )


def print_equalization(result: Any) -> None:
    """Print how many channels were rescaled, and which layers kept the scale of their outputs, by reason."""
    if not result.num_equalized:
        return
    names: dict[str, list[str]] = {}
    for name, reason in result.left_alone.items():
        names.setdefault(reason.split(' of ')[0], []).append(name)
    left = '; '.join(
        f'{", ".join(layers) if len(layers) < 4 else f"{layers[0]} and {len(layers) - 1} more"} ({reason})'
        for reason, layers in names.items()
    )
    print(f'equalized: {result.num_equalized:,} channels rescaled; outputs left as they are: {left or "none"}')


def add_comparison(parser: argparse.ArgumentParser, help: str, default: float | None = None) -> None:
    """Add options for the images on which two models are compared, and for the tolerance."""
    parser.add_argument(
        '--data',
        metavar='PATH',
        help='image or folder of images to compare on (default: seeded noise), and to equalize by',
    )
    parser.add_argument('--tolerance', type=positive_float, default=default, help=help)

"""Time the training data of a config, and say what bounds a training on this machine: data or compute.

The pipelines are timed in one process, in turns with the same of mmpretrain's steps, then the data loader with several
numbers of workers, then the training step. If the images of the config are not there, JPEGs of the size of ImageNet are
generated.

example: mmrepvgg benchmark-data repvgg-a0_8xb32
"""

import argparse

from ..checkpoints.writing import require_writable
from ..progress import starting, working
from .arguments import add_output, positive_float, positive_int
from .config_options import add_config, get_config
from .errors import translate

# what to lower where there is not enough memory
MEMORY = '`batch_size`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config of the model and its training data')
    parser.add_argument(
        '--workers',
        nargs='+',
        type=_count,
        metavar='N',
        help='numbers of workers (default: 0, 1, 2, 4, ... and the number of cores)',
    )
    parser.add_argument(
        '--batch-size', type=positive_int, metavar='N', help="images in a batch (default: the config's; 8 on a CPU)"
    )
    parser.add_argument('--repeats', type=positive_int, default=10, metavar='N', help='timed rounds (default: 10)')
    parser.add_argument(
        '--seconds', type=positive_float, default=5, metavar='S', help='time for each number of workers (default: 5)'
    )
    add_output(parser, '--out', ['.json'], 'write everything, raw times too, to this file')


def _count(text: str) -> int:
    return 0 if text == '0' else positive_int(text)


def run(args: argparse.Namespace) -> None:
    require_writable(args.out)
    cfg = get_config(args)

    with starting():
        from ..benchmark.data_report import format_data_report, write_data_json
        from ..benchmark.data_run import benchmark_data

    with working('timing'):
        report = benchmark_data(
            cfg, workers=args.workers, batch_size=args.batch_size, repeats=args.repeats, seconds=args.seconds
        )
    print(translate(format_data_report(report, args.command_line), add_arguments))
    if args.out:
        write_data_json(report, args.command_line, args.out)
        print(f'{args.out}: written')

"""Write one HTML page about a training: its curves, its mistakes, what the switch did, and the speed of all files.

The page is one file without scripts, and needs no network. `train` writes it at its end.

example: mmrepvgg report work_dirs/repvgg-a0_8xb32
         mmrepvgg report work_dirs/repvgg-a0_8xb32 --exported repvgg-a0.onnx repvgg-a0_int8.onnx --out report.html
"""

import argparse

from ..checkpoints.writing import require_writable
from ..progress import starting, working
from ..runtimes.table import list_suffixes
from .arguments import add_output, list_endings, positive_int
from .files import require_file, require_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('work_dir', help='folder of a training: its config, its log and its checkpoints')
    add_output(parser, '--out', ['.html'], 'file to write; default: report.html in the folder')
    parser.add_argument('--checkpoint', metavar='FILE', help='checkpoint of the training (default: the latest one)')
    parser.add_argument(
        '--exported',
        nargs='+',
        metavar='FILE',
        help=f'exported files to measure, too, {list_endings(list_suffixes())} (default: those in the folder)',
    )
    parser.add_argument(
        '--num-samples',
        type=positive_int,
        default=512,
        metavar='N',
        help='validation images that are predicted (default: 512)',
    )


def run(args: argparse.Namespace) -> None:
    require_writable(args.out)
    if args.checkpoint:
        require_file(args.checkpoint)
    for path in args.exported or ():
        require_weights(path)

    with starting():
        from ..report.writing import write_report

    with working('writing the report'):
        path = write_report(
            args.work_dir,
            args.out,
            checkpoint=args.checkpoint,
            exported=args.exported,
            num_samples=args.num_samples,
        )
    print(f'report: {path}')

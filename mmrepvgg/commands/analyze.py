"""Predict what int8 will cost a model before a file is made: layer by layer, end to end, and why.

example: mmrepvgg analyze repvgg-a0_digits epoch_20.pth --num-samples 360 --out int8.json --plot int8.png
"""

import argparse

from ..checkpoints.writing import require_writable
from ..data.layout import SPLITS
from ..progress import starting, working
from .arguments import add_output, positive_int
from .config_options import add_config, get_config
from .errors import translate
from .file_options import add_ema
from .files import require_file

# what to lower where there is not enough memory
MEMORY = '`num_samples` or `num_calibration`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config of the model, train or deploy')
    parser.add_argument('checkpoint', help='its weights in either form; the train form also shows harmful batch norms')
    parser.add_argument(
        '--num-samples',
        type=positive_int,
        default=512,
        metavar='N',
        help='images on which accuracy is compared (default: 512)',
    )
    parser.add_argument('--split', choices=SPLITS, default='test', help='split of these images (default: test)')
    parser.add_argument(
        '--num-calibration',
        type=positive_int,
        default=128,
        metavar='N',
        help='images that give the ranges of the activations (default: 128)',
    )
    parser.add_argument(
        '--calibration-split', choices=SPLITS, default='train', help='split of these images (default: train)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw of both (default: 0)')
    add_ema(parser)
    add_output(parser, '--out', ['.json'], 'write everything to this file')
    add_output(parser, '--plot', ['.png'], 'draw the layers')


def run(args: argparse.Namespace) -> None:
    require_writable(args.out, args.plot)
    require_file(args.checkpoint)
    cfg = get_config(args, *sorted({f'{split}_dataloader' for split in (args.split, args.calibration_split)}))

    with starting():
        from ..quantization.analysis.analyze import analyze
        from ..quantization.analysis.report import format_report, write_json
        from ..quantization.analysis.verdict import judge

    with working('analyzing'):
        analysis = analyze(
            cfg,
            args.checkpoint,
            num_samples=args.num_samples,
            num_calibration=args.num_calibration,
            seed=args.seed,
            split=args.split,
            calibration_split=args.calibration_split,
            ema=args.ema,
        )
    verdict = judge(analysis)
    if analysis.was_switched:
        print(f'{args.checkpoint}: train form, switched to deploy form in memory')
    print(translate(format_report(analysis, verdict), add_arguments))
    if args.out:
        write_json(analysis, verdict, args.out)
        print(f'{args.out}: written')
    if args.plot:
        from ..quantization.analysis.picture import draw_picture

        draw_picture(analysis, verdict, args.plot)
        print(f'{args.plot}: written')

"""Predict what int8 will cost a model before a file is made: layer by layer, end to end, and why.

example: python tools/analyze_quantization.py configs/repvgg/repvgg-a0_digits.py epoch_20.pth \\
             --num-samples 360 --out int8.json --plot int8.png
"""

import argparse
from pathlib import Path

from mmrepvgg import cli

SPLITS = ('train', 'test')


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model, train or deploy')
    parser.add_argument('checkpoint', help='its weights in either form; a train form also tells what causes harm')
    parser.add_argument(
        '--num-samples',
        type=cli.positive_int,
        default=512,
        metavar='N',
        help='images on which accuracy is compared (default: 512)',
    )
    parser.add_argument('--split', choices=SPLITS, default='test', help='where they come from (default: test)')
    parser.add_argument(
        '--num-calibration',
        type=cli.positive_int,
        default=128,
        metavar='N',
        help='images that give the ranges of the activations (default: 128)',
    )
    parser.add_argument(
        '--calibration-split', choices=SPLITS, default='train', help='where they come from (default: train)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the draw of both (default: 0)')
    parser.add_argument('--ema', action='store_true', help='analyze the averaged (EMA) weights')
    parser.add_argument('--out', type=cli.json_file, metavar='FILE.json', help='write everything to this file')
    parser.add_argument('--plot', type=picture_file, metavar='FILE.png', help='draw the layers')
    cli.add_config_options(parser)
    return parser


def picture_file(name: str) -> Path:
    if Path(name).suffix != '.png':
        raise argparse.ArgumentTypeError(f'must end in .png, got {name!r}')
    return Path(name)


def main(args: argparse.Namespace) -> None:
    cli.require_writable(args.out, args.plot)
    cli.require_file(args.checkpoint)
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.data.layout import check_data

    check_data(cfg, sorted({f'{split}_dataloader' for split in (args.split, args.calibration_split)}))

    from mmrepvgg.quantization.analysis.analyze import analyze
    from mmrepvgg.quantization.analysis.report import format_report, write_json
    from mmrepvgg.quantization.analysis.verdict import judge

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
    print(format_report(analysis, verdict))
    if args.out:
        write_json(analysis, verdict, args.out)
        print(f'{args.out}: written')
    if args.plot:
        from mmrepvgg.quantization.analysis.picture import draw_picture

        draw_picture(analysis, verdict, args.plot)
        print(f'{args.plot}: written')


if __name__ == '__main__':
    cli.run(parse(), main)

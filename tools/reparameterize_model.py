"""Convert a trained checkpoint to deploy form: every block becomes one 3x3 convolution.

example: python tools/reparameterize_model.py configs/repvgg/repvgg-a0_8xb32.py epoch_120.pth repvgg-a0_deploy.pth
"""

import argparse
from pathlib import Path

from mmrepvgg import cli


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config with which the checkpoint was trained')
    parser.add_argument('source', metavar='src', help='checkpoint in train form')
    parser.add_argument('destination', metavar='dst', type=cli.weights_file, help='file to write (.pth)')
    parser.add_argument('--ema', action='store_true', help='convert the averaged (EMA) weights')
    parser.add_argument(
        '--data', metavar='PATH', help='image or folder of images to compare on (default: seeded noise)'
    )
    parser.add_argument(
        '--tolerance',
        type=cli.positive_float,
        default=1e-4,
        help="largest allowed difference of the two forms' outputs, relative to the largest output (default: 1e-4)",
    )
    cli.add_config_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    cli.require_file(args.source)
    if args.data is not None and not Path(args.data).exists():
        raise FileNotFoundError(f'{args.data} does not exist')
    if args.destination.exists() and args.destination.samefile(args.source):
        raise ValueError(f'dst must be another file than src, got {args.source} for both')
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint

    result = reparameterize_checkpoint(
        cfg, args.source, args.destination, ema=args.ema, data=args.data, tolerance=args.tolerance
    )
    inputs = 'image(s)' if args.data else 'noise input(s)'
    print(
        f'{args.destination}: {result.train_params:,} -> {result.deploy_params:,} parameters (from {result.entry}); '
        f'largest difference {result.difference:.1e} of the largest output on {result.num_inputs} {inputs}'
    )
    if result.dropped_heads:
        print(f'dropped, for training only: {", ".join(result.dropped_heads)}')
    if result.was_trained_for_int8:
        print(
            'note: this is of quantization-aware training, whose unrounded weights may be far less accurate; '
            'tools/quantize.py writes its int8 file from the train-form checkpoint'
        )


if __name__ == '__main__':
    cli.run(parse(), main)

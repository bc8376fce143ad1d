"""Write generated images of shapes and their masks, the data of the segmentation example.

example: python tools/prepare_shapes.py data/shapes
"""

import argparse

from mmrepvgg import cli


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('root', nargs='?', default='data/shapes', help='folder to write (default: data/shapes)')
    parser.add_argument('--num-train', type=positive, default=200, help='training images (default: 200)')
    parser.add_argument('--num-val', type=positive, default=40, help='validation images (default: 40)')
    return parser


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {text}')
    return value


def main(args: argparse.Namespace) -> None:
    from mmrepvgg.data.shapes import prepare_shapes

    prepare_shapes(args.root, args.num_train, args.num_val)
    print(f'{args.root}: {args.num_train} training and {args.num_val} validation images')


if __name__ == '__main__':
    cli.run(parse(), main)

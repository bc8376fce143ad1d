"""Write scikit-learn's handwritten digits as an ImageNet-style folder of PNG files.

example: python tools/prepare_digits.py data/digits
"""

import argparse

from mmrepvgg import cli


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('root', nargs='?', default='data/digits', help='folder to write (default: data/digits)')
    return parser


def main(args: argparse.Namespace) -> None:
    from mmrepvgg.data.digits import prepare_digits

    num_train, num_val = prepare_digits(args.root)
    print(f'{args.root}: {num_train} training and {num_val} validation images')


if __name__ == '__main__':
    cli.run(parse(), main)

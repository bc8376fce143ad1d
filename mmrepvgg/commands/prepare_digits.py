"""Write scikit-learn's handwritten digits as an ImageNet-style folder of PNG files.

example: mmrepvgg prepare-digits data/digits
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', nargs='?', default='data/digits', help='folder to write (default: data/digits)')


def run(args: argparse.Namespace) -> None:
    from ..data.digits import prepare_digits

    num_train, num_val = prepare_digits(args.root)
    print(f'{args.root}: {num_train} training and {num_val} validation images')

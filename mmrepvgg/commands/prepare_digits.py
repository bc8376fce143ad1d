"""Write scikit-learn's handwritten digits as an ImageNet-style folder of PNG files.

example: mmrepvgg prepare-digits data/digits
"""

import argparse

from ..progress import starting, working


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', nargs='?', default='data/digits', help='folder to write (default: data/digits)')


def run(args: argparse.Namespace) -> None:
    with starting():
        from ..data.digits import prepare_digits

    with working('writing'):
        num_train, num_val = prepare_digits(args.root)
    print(f'{args.root}: {num_train} training and {num_val} validation images')

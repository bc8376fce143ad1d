"""Read every image of a config's training, validation and test data, and name those that are missing or damaged.

A training stops at the first such image, unless --skip-damaged is given. This finds all of them before it starts. The
exit status is 0 only if every image can be read.

example: mmrepvgg check-images repvgg-a0_8xb32 --workers 8
"""

import argparse
import os

from ..progress import starting
from .arguments import positive_int
from .config_options import add_config, get_config

# what to lower where there is not enough memory
MEMORY = '`workers`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config of the data')
    parser.add_argument(
        '--workers', type=positive_int, metavar='N', help='processes that read (default: as many as there are cores)'
    )


def run(args: argparse.Namespace) -> None:
    cfg = get_config(args, 'train_dataloader', 'val_dataloader', 'test_dataloader')

    with starting():
        from ..data.checking import ImageCheck
        from ..data.images import UnreadableImageError
        from ..printable import make_printable
        from ..progress import track

        check = ImageCheck(cfg, args.workers or os.cpu_count() or 1)
    num_damaged = 0
    for damaged in track(check, 'reading images', len(check)):
        if damaged:
            num_damaged += 1
            print(f'{make_printable(damaged[0])}: {damaged[1]}', flush=True)
    if num_damaged:
        raise UnreadableImageError(
            f'{num_damaged} of {len(check)} images can not be read; repair or remove them, or let `train` go on '
            'without them with `skip_damaged`'
        )
    print(f'all {len(check)} images can be read')

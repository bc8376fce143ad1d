"""Write a config for your own images: a folder of class folders, train/ and val/, lists like ImageNet's, or a CSV file.

Every image is read once, and what is wrong is told: damaged images, duplicates, small classes. Without validation
images a fifth of each class is taken for that. The images stay where they are and as they are.

example: mmrepvgg new data/flowers
         mmrepvgg new photos.csv --from repvgg-a0_train.pth --out photos.py
"""

import argparse
import sys

from ..models.archs import ARCHS
from ..printable import make_printable
from ..progress import starting, working
from .files import require_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'data',
        help='folder with <class>/<image>, train/<class>/<image> or meta/train.txt, or a CSV file with the columns '
        'path, label and perhaps split',
    )
    parser.add_argument('--out', metavar='CONFIG', help='config to write (default: <name of the data>.py)')
    parser.add_argument('--arch', choices=list(ARCHS), metavar='ARCH', help=f'one of {", ".join(ARCHS)} (default: A0)')
    parser.add_argument(
        '--from',
        dest='weights',
        metavar='CHECKPOINT',
        help='weights in train form to fine-tune: any file that mmrepvgg convert reads; the arch follows from it',
    )


def run(args: argparse.Namespace) -> None:
    if args.weights is not None:
        require_file(args.weights)

    with starting():
        from ..own_data.project import new_project

    with working('looking at the images'):
        project = new_project(args.data, args.out, arch=args.arch, weights=args.weights)
    for note in project.notes:
        print(f'note: {make_printable(note)}', file=sys.stderr)
    arch = f'RepVGG-{project.arch}' if isinstance(project.arch, str) else 'RepVGG'
    images = ' and '.join(
        f'{project.num_images[split]} {title} images'
        for split, title in (('train', 'training'), ('val', 'validation'), ('test', 'test'))
        if split in project.num_images
    )
    print(f'{project.config}: {arch}, {project.size} x {project.size} pixels, {images}, {len(project.classes)} classes')
    print('next:', *project.commands, sep='\n  ')

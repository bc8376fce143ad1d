"""Convert RepVGG weights between this project and other systems; every tensor keeps its values.

Reads torch.save's, safetensors', MindSpore's (.ckpt) and Paddle's (.pdparams) files, without running what is in them.

example: python tools/convert_checkpoint.py RepVGG-A0-train.pth repvgg-a0_train.pth
         python tools/convert_checkpoint.py repvgg-a0_train.pth repvgg_a0.safetensors --target timm
"""

import argparse
from pathlib import Path
from typing import Any

from mmrepvgg import cli

# The keys of mmrepvgg.checkpoints.keymaps.SYSTEMS, its TARGETS, and the suffixes of mmrepvgg.checkpoints.formats;
# importing them would import torch before a usage error shows.
SOURCES = [
    'official',
    'repvggplus',
    'timm',
    'mmrepvgg',
    'mmpretrain',
    'mindcv',
    'mindspore',
    'paddleclas',
    'qarepvgg',
]
TARGETS = ['mmrepvgg', 'official', 'timm']
SUFFIXES = ('.pth', '.pt', '.safetensors')


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('source', metavar='src', help='checkpoint of any of the systems, in train or deploy form')
    parser.add_argument(
        'destination', metavar='dst', type=destination_file, help=f'file to write ({"/".join(SUFFIXES)})'
    )
    parser.add_argument(
        '--source', dest='system', choices=['auto', *SOURCES], default='auto', help='where src is from (default: auto)'
    )
    parser.add_argument('--target', choices=TARGETS, default='mmrepvgg', help='for which system (default: mmrepvgg)')
    parser.add_argument('--ema', action='store_true', help='convert the averaged (EMA) weights')
    parser.add_argument('--drop-aux-heads', action='store_true', help="leave out RepVGGplus' training-only heads")
    return parser


def destination_file(name: str) -> Path:
    if Path(name).suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f'must end in {", ".join(SUFFIXES)}, got {name!r}')
    return Path(name)


def main(args: argparse.Namespace) -> None:
    cli.require_file(args.source)
    if args.destination.exists() and args.destination.samefile(args.source):
        raise ValueError(f'dst must be another file than src, got {args.source} for both')

    from mmrepvgg.checkpoints.convert import convert_checkpoint

    result = convert_checkpoint(
        args.source,
        args.destination,
        system=args.system,
        target=args.target,
        ema=args.ema,
        drop_aux_heads=args.drop_aux_heads,
    )
    print_result(args, result)


def print_result(args: argparse.Namespace, result: Any) -> None:
    structure = result.structure
    classes = f'{structure.num_classes} classes' if structure.num_classes else 'no head'
    print(
        f'source: {result.recognition.system} ({result.recognition.reason}); {result.file_format} file, {result.entry}'
    )
    print(f'network: {structure.arch}, {structure.form} form, {classes}')
    for rule, keys in result.dropped.items():
        print(f'dropped: {len(keys)} ({rule}): {", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""}')
    if result.note:
        print(f'note: {result.note}')
    print(f'{args.destination}: {len(result.weights)} tensors for {args.target}')


if __name__ == '__main__':
    cli.run(parse(), main)

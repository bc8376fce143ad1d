"""Convert RepVGG weights between this project and other systems; every tensor keeps its values.

Reads torch.save's, safetensors', MindSpore's (.ckpt) and Paddle's (.pdparams) files, without running what is in them.

example: mmrepvgg convert RepVGG-A0-train.pth repvgg-a0_train.pth
         mmrepvgg convert repvgg-a0_train.pth repvgg_a0.safetensors --target timm
"""

import argparse
from typing import Any

from ..checkpoints.keymaps import SYSTEMS, TARGETS
from ..checkpoints.writing import WRITABLE_SUFFIXES, require_writable
from ..printable import make_printable
from ..progress import starting, working
from .arguments import add_output
from .file_options import add_ema
from .files import require_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', metavar='src', help='checkpoint of any of the systems, in train or deploy form')
    add_output(parser, 'destination', WRITABLE_SUFFIXES, 'file to write', 'dst')
    parser.add_argument(
        '--source', dest='system', choices=['auto', *SYSTEMS], default='auto', help='where src is from (default: auto)'
    )
    parser.add_argument('--target', choices=TARGETS, default='mmrepvgg', help='for which system (default: mmrepvgg)')
    parser.add_argument('--part', metavar='NAME', help='one network of several in src, such as Student')
    add_ema(parser)
    parser.add_argument('--drop-aux-heads', action='store_true', help="leave out RepVGGplus' training-only heads")


def run(args: argparse.Namespace) -> None:
    require_source(args.source, args.destination)
    require_writable(args.destination)

    with starting():
        from ..checkpoints.convert import convert_checkpoint

    with working('converting'):
        result = convert_checkpoint(
            args.source,
            args.destination,
            system=args.system,
            target=args.target,
            part=args.part,
            ema=args.ema,
            drop_aux_heads=args.drop_aux_heads,
        )
    print_result(args, result)


def print_result(args: argparse.Namespace, result: Any) -> None:
    structure = result.structure
    classes = f'{structure.num_classes} classes' if structure.num_classes else 'no head'
    reason = make_printable(result.recognition.reason)
    print(f'source: {result.recognition.system} ({reason}); {result.file_format} file, {result.entry}')
    print(f'network: {structure.arch}, {structure.form} form, {classes}')
    for rule, keys in result.dropped.items():
        names = ', '.join(key[:200] for key in keys[:3])
        print(make_printable(f'dropped: {len(keys)} ({rule}): {names}{", ..." if len(keys) > 3 else ""}'))
    if result.note:
        print(f'note: {result.note}')
    print(f'{args.destination}: {len(result.weights)} tensors for {args.target}')

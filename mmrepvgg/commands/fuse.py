"""Fuse an ONNX file that somebody exported with its branches and norms: what one convolution computes becomes one.

example: mmrepvgg fuse mobileone_s0.onnx mobileone_s0_fused.onnx
         mmrepvgg fuse detector.onnx detector_fused.onnx --data some_images --input-size 640 --report fused.json
"""

import argparse
import json
from pathlib import Path

from ..checkpoints.writing import replacing, require_writable
from ..progress import starting, working
from .arguments import add_output, add_size
from .file_options import add_comparison
from .files import require_path, require_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', metavar='src', help='ONNX file; its weights may be in other files beside it')
    add_output(parser, 'destination', ('.onnx',), 'file to write', 'dst')
    add_comparison(
        parser,
        "largest allowed difference of both files' outputs, relative to the largest output (default: 1e-4; float16 "
        '1e-2; bfloat16 5e-2)',
    )
    add_size(parser, '--input-size', 'height and width, where the file leaves them free (default: usual ones)')
    parser.add_argument('--report', metavar='FILE', type=Path, help='write what was fused and left as JSON')


def run(args: argparse.Namespace) -> None:
    require_source(args.source, args.destination)
    require_writable(args.destination, args.report)
    require_path(args.data)

    with starting():
        from ..runtimes.fuse import fuse_onnx

    with working('fusing'):
        result = fuse_onnx(
            args.source,
            args.destination,
            data=args.data,
            input_size=args.input_size,
            tolerance=args.tolerance,
        )
    if args.report is not None:
        with replacing(args.report) as temporary:
            temporary.write_text(f'{json.dumps(result.report.to_dict(), indent=2)}\n', encoding='utf-8')
    print(result.report)
    before, after = result.num_nodes
    print(f'{args.destination}: {before:,} -> {after:,} nodes; compared on {result.num_inputs} input(s)')

"""Export a checkpoint for a runtime. The file is run and compared with PyTorch before it is kept.

example: mmrepvgg export repvgg-a0_8xb32 epoch_120.pth repvgg-a0.onnx
         mmrepvgg export repvgg-a0_8xb32 epoch_120.pth repvgg-a0.xml --precision bf16 --with-preprocess --softmax \\
             --data data/imagenet/val/n01440764
         mmrepvgg export --model timm:mobileone_s0 --checkpoint weights.pth mobileone.onnx
"""

import argparse
from typing import Any

from ..progress import starting, working
from ..runtimes.format import PRECISIONS
from ..runtimes.table import FORMATS, find_format
from .arguments import add_size, positive_int
from .config_options import add_model, get_config, require_model_usage
from .errors import checking_usage
from .file_options import (
    add_comparison,
    add_equalize,
    add_file_options,
    add_out,
    get_file_options,
    print_equalization,
)
from .files import require_file, require_path
from .reparameterize import print_note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        'config of the model, train or deploy',
        'its weights in either form; the train form is switched first',
    )
    add_out(parser, FORMATS)
    add_size(parser, '--input-size', "height and width, or one number for both (default: the config's test pipeline's)")
    add_file_options(parser)
    parser.add_argument(
        '--opset', type=positive_int, help="ONNX: version of the operators, 11 or later (default: the exporter's)"
    )
    add_equalize(parser)
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32', help='precision (default: fp32)')
    add_comparison(
        parser,
        'largest allowed difference from PyTorch, relative to the largest output (default: 1e-4; fp16 1e-2; bf16 5e-2)',
    )


def run(args: argparse.Namespace) -> None:
    require_model_usage(args)
    options = get_file_options(args)
    row = find_format(args.out)
    with checking_usage():
        row.check(
            precision=args.precision,
            opset=args.opset,
            dynamic_batch=args.dynamic_batch,
            dynamic_size=args.dynamic_size,
            with_preprocess=args.with_preprocess,
            softmax=args.softmax,
        )
    row.require_writable(args.out)
    require_file(args.checkpoint)
    require_path(args.data)
    row.require_packages(write=True)
    cfg = get_config(args)

    with starting():
        from ..runtimes.export import export_model

    with working(f'exporting {args.out.name}'):
        result = export_model(
            cfg,
            args.checkpoint,
            args.out,
            input_size=args.input_size,
            opset=args.opset,
            precision=args.precision,
            data=args.data,
            tolerance=args.tolerance,
            equalize=args.equalize,
            **options,
        )
    print_result(args, result)


def _name_inputs(args: argparse.Namespace, metadata: Any) -> str:
    if metadata.dynamic_size:
        return 'inputs of three sizes'
    return 'image(s)' if args.data else 'noise input(s)'


def print_result(args: argparse.Namespace, result: Any) -> None:
    metadata = result.metadata
    kind = 'uint8' if metadata.with_preprocess else 'normalised float32'
    size = 'H, W' if metadata.dynamic_size else ', '.join(map(str, metadata.input_size))
    if result.was_switched:
        print(f'{args.checkpoint}: train form, switched to deploy form')
    print(
        f'{args.out}: takes {kind} images ({metadata.batch_size or "N"}, {metadata.channels}, {size}), '
        f'gives {metadata.num_classes} {"probabilities" if metadata.softmax else "logits"}, {metadata.precision}'
    )
    print(
        f'largest difference from PyTorch: {result.max_difference:.1e}, {result.difference:.1e} of the largest output, '
        f'on {result.num_inputs} {_name_inputs(args, metadata)}'
    )
    if result.not_run:
        print(f'not run here: {result.not_run}')
    print_equalization(result)
    print_note(result)
    if metadata.precision == 'bf16' and result.computed_in != 'bf16':
        print(f'note: this CPU has no bfloat16 instructions, so the file was run in {result.computed_in}')
    if result.max_activation is not None:
        print(f'largest activation: {result.max_activation:.3g} of the 65504 that fp16 holds')

"""Export a checkpoint for a runtime; the ending of OUT says which, and the file is run and compared before it is kept.

.onnx (ONNX Runtime), .xml (OpenVINO, with its .bin), .pt2 (torch.export), .ts or .torchscript, .safetensors (weights)

example: python tools/export.py configs/repvgg/repvgg-a0_8xb32.py epoch_120.pth repvgg-a0.onnx
         python tools/export.py configs/repvgg/repvgg-a0_8xb32.py epoch_120.pth repvgg-a0.xml --precision bf16 \\
             --with-preprocess --softmax --data data/imagenet/val/n01440764
"""

import argparse
from pathlib import Path
from typing import Any

from mmrepvgg import cli
from mmrepvgg.runtimes.format import PRECISIONS
from mmrepvgg.runtimes.table import find_format


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model, train or deploy')
    parser.add_argument('checkpoint', help='its weights in either form; a train form is switched on the way')
    parser.add_argument('out', type=exported_file, help='file to write')
    parser.add_argument(
        '--input-size', nargs='+', type=cli.positive_int, metavar='PIXELS', action=Size,
        help="height and width, or one number for both (default: the config's test pipeline's)",
    )  # fmt: skip
    cli.add_file_options(parser)
    parser.add_argument(
        '--opset', type=cli.positive_int, help="ONNX: version of the operators, 11 or later (default: the exporter's)"
    )
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32', help='of the weights (default: fp32)')
    parser.add_argument(
        '--data', metavar='PATH', help='image or folder of images to compare on (default: seeded noise)'
    )
    parser.add_argument(
        '--tolerance',
        type=cli.positive_float,
        help='largest allowed difference from PyTorch, relative to the largest output '
        '(default: 1e-4; fp16 1e-2; bf16 5e-2)',
    )
    cli.add_config_options(parser)
    return parser


class Size(argparse.Action):
    """Keeps one number, or two, as height and width."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if len(values) > 2:
            parser.error(f'--input-size takes one number or two, height and width, got {len(values)}')
        setattr(namespace, self.dest, (values[0], values[-1]))


def exported_file(name: str) -> Path:
    try:
        find_format(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(name)


def check_usage(args: argparse.Namespace) -> None:
    try:
        find_format(args.out).check(
            precision=args.precision,
            opset=args.opset,
            dynamic_batch=args.dynamic_batch,
            with_preprocess=args.with_preprocess,
            softmax=args.softmax,
        )
    except ValueError as error:
        parse().error(str(error))
    cli.check_file_options(parse(), args)


def main(args: argparse.Namespace) -> None:
    check_usage(args)
    cli.require_writable(args.out)
    cli.require_file(args.checkpoint)
    if args.data is not None and not Path(args.data).exists():
        raise FileNotFoundError(f'{args.data} does not exist')
    find_format(args.out).require_packages(write=True)
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.runtimes.export import export_model

    result = export_model(
        cfg,
        args.checkpoint,
        args.out,
        input_size=args.input_size,
        dynamic_batch=args.dynamic_batch,
        batch_size=args.batch_size or 1,
        opset=args.opset,
        precision=args.precision,
        with_preprocess=args.with_preprocess,
        softmax=args.softmax,
        ema=args.ema,
        data=args.data,
        tolerance=args.tolerance,
    )
    print_result(args, result)


def print_result(args: argparse.Namespace, result: Any) -> None:
    metadata = result.metadata
    kind = 'uint8' if metadata.with_preprocess else 'normalised float32'
    if result.was_switched:
        print(f'{args.checkpoint}: train form, switched to deploy form')
    print(
        f'{args.out}: takes {kind} images ({metadata.batch_size or "N"}, {metadata.channels}, '
        f'{metadata.input_size[0]}, {metadata.input_size[1]}), '
        f'gives {metadata.num_classes} {"probabilities" if metadata.softmax else "logits"}, {metadata.precision}'
    )
    print(
        f'largest difference from PyTorch: {result.max_difference:.1e}, {result.difference:.1e} of the largest output, '
        f'on {result.num_inputs} {"image(s)" if args.data else "noise input(s)"}'
    )
    if result.was_trained_for_int8:
        print(
            'note: this is of quantization-aware training, whose unrounded weights may be far less accurate; '
            'tools/quantize.py writes its int8 file from the train-form checkpoint'
        )
    if metadata.precision == 'bf16' and result.computed_in != 'bf16':
        print(f'note: this CPU has no bfloat16 instructions, so that was computed in {result.computed_in}')
    if result.max_activation is not None:
        print(f'largest activation: {result.max_activation:.3g} of the 65504 that fp16 holds')


if __name__ == '__main__':
    cli.run(parse(), main)

"""Switch a trained checkpoint to deploy form: every block becomes one 3x3 convolution.

A model that holds no block of this project, such as one of timm, is switched by its structure.

example: mmrepvgg reparameterize repvgg-a0_8xb32 epoch_120.pth repvgg-a0_deploy.pth
         mmrepvgg reparameterize repvgg-a0_8xb32 epoch_120.pth repvgg-a0_equalized.pth --equalize --data some_images
         mmrepvgg reparameterize --model timm:mobileone_s0 --checkpoint weights.pth mobileone_deploy.pth
"""

import argparse
import json
from typing import Any

from ..checkpoints.writing import TORCH_SUFFIXES, replacing, require_writable
from ..progress import starting, working
from .arguments import add_output
from .config_options import add_model, get_config, require_model_usage
from .file_options import add_comparison, add_ema, add_equalize, print_equalization
from .files import require_path, require_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        'config with which the checkpoint was trained',
        'checkpoint in train form; with --equalize also in deploy form',
        name='source',
        metavar='src',
    )
    add_output(parser, 'destination', TORCH_SUFFIXES, 'file to write', 'dst')
    add_output(
        parser, '--report', ['.json'], 'write to this file what became one layer, and what is left, with the reasons'
    )
    add_ema(parser)
    add_equalize(parser)
    add_comparison(
        parser,
        "largest allowed difference of the two forms' outputs, relative to the largest output (default: 1e-4)",
        1e-4,
    )


def run(args: argparse.Namespace) -> None:
    require_model_usage(args)
    require_source(args.source, args.destination)
    require_writable(args.destination, args.report)
    require_path(args.data)
    cfg = get_config(args)

    with starting():
        from ..reparam.checkpoint import reparameterize_checkpoint

    with working('switching'):
        result = reparameterize_checkpoint(
            cfg,
            args.source,
            args.destination,
            ema=args.ema,
            data=args.data,
            tolerance=args.tolerance,
            equalize=args.equalize,
        )
    inputs = 'image(s)' if args.data else 'noise input(s)'
    print(
        f'{args.destination}: {result.train_params:,} -> {result.deploy_params:,} parameters (from {result.entry}); '
        f'largest difference {result.difference:.1e} of the largest output on {result.num_inputs} {inputs}'
    )
    if result.dropped_heads:
        print(f'dropped, for training only: {", ".join(result.dropped_heads)}')
    print_equalization(result)
    print_note(result)
    if args.report:
        with replacing(args.report) as temporary:
            temporary.write_text(json.dumps(result.report.to_dict(), indent=1) + '\n')
        print(f'{args.report}: written')


def print_note(result: Any) -> None:
    """Print a note if the model was trained for int8."""
    if result.was_trained_for_int8:
        print(
            'note: this checkpoint is of quantization-aware training, so it may be far less accurate in float32 than '
            'in int8; mmrepvgg quantize writes its int8 file from the train-form checkpoint'
        )

"""Compare a trained checkpoint with its deploy form on the test set: size, cost, accuracy, speed, agreement.
With --layers: compare a checkpoint with its deploy form or exported file, and find the first layer that departs.

example: mmrepvgg compare repvgg-a0_digits epoch_20.pth deploy.pth
         mmrepvgg compare repvgg-a0_digits epoch_20.pth repvgg-a0.onnx --layers --data data/digits/val
"""

import argparse
import platform
from typing import Any

from ..progress import starting, working
from ..runtimes.table import find_format, is_exported, list_suffixes
from ..tables import format_table
from .arguments import list_endings
from .config_options import add_config, get_config
from .errors import UsageError
from .file_options import add_comparison
from .files import require_file, require_path, require_weights

# what to lower where there is not enough memory
MEMORY = '`test_dataloader.batch_size=N`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config with which the checkpoint was trained')
    parser.add_argument('train_checkpoint', help='checkpoint in train form; with --layers in either form')
    parser.add_argument(
        'deploy_checkpoint',
        help='checkpoint in deploy form; with --layers in either form, or an exported file '
        f'({list_endings(list_suffixes())})',
    )
    parser.add_argument('--layers', action='store_true', help='compare the outputs of all layers, not the accuracy')
    add_comparison(
        parser,
        'with --layers: largest allowed difference, relative to the largest output of the layer (default: 1e-4; fp16 '
        '1e-2; bf16 5e-2)',
    )


def run(args: argparse.Namespace) -> None:
    if not args.layers:
        if args.data or args.tolerance:
            raise UsageError('--data and --tolerance go with --layers; without it the test set is compared')
        if is_exported(args.deploy_checkpoint):
            raise UsageError(f'{args.deploy_checkpoint} is an exported file, which is compared with --layers')
    require_file(args.train_checkpoint)
    require_weights(args.deploy_checkpoint)
    require_path(args.data)
    if args.layers:
        _run_layers(args)
        return
    cfg = get_config(args, 'test_dataloader')

    with starting():
        from ..reparam.comparison import compare_forms

    with working('comparing'):
        result = compare_forms(cfg, args.train_checkpoint, args.deploy_checkpoint)
    print_table(result)
    if result.num_different:
        raise ValueError(
            f'the two forms predict different classes for {result.num_different} of {result.num_images} images; '
            'the deploy checkpoint was not made from this train checkpoint, or the weights are degenerate'
        )


def _run_layers(args: argparse.Namespace) -> None:
    cfg = get_config(args)

    with starting():
        from ..runtimes.layers import compare_layers

    with working('comparing'):
        result = compare_layers(
            cfg, args.train_checkpoint, args.deploy_checkpoint, data=args.data, tolerance=args.tolerance
        )
    rows = [
        [name, f'{found.largest:.1e}', f'{found.largest_output:.1e}', f'{found.relative:.1e}']
        for name, found in result.differences.items()
    ]
    print(format_table(['layer', 'largest difference', 'largest output', 'relative'], rows))
    if not result.shows_layers:
        name = find_format(args.deploy_checkpoint).name
        print(f'{name} files do not show their layers: only the scores were compared')
    elif result.tolerance is None:
        print('int8 rounds, and no tolerance fits all models: nothing was judged; set --tolerance')
    if result.first is not None:
        found = result.differences[result.first].relative
        allowed = '' if result.tolerance is None else f', with a tolerance of {result.tolerance:.0e}'
        raise ValueError(
            f'{result.first} is the first layer that departs, by {found:.1e} of its largest output{allowed}: '
            f'{args.deploy_checkpoint} was not made from this checkpoint, or its weights there are damaged'
        )


def print_table(result: Any) -> None:
    import torch

    columns = ('form', 'parameters', 'GFLOPs', 'top-1', 'latency per image', 'largest logit difference')
    rows = [
        [
            form.name,
            f'{form.params:,}',
            f'{form.macs / 1e9:.4f}',
            f'{form.accuracy:.2f}%',
            f'{form.latency * 1e3:.2f} ms',
            f'{result.max_difference:.1e}' if form.name == 'deploy' else '-',
        ]
        for form in result.forms
    ]
    print(format_table(columns, rows))
    print(
        f'{result.num_images} images, {result.num_different} predictions differ, largest logit {result.max_logit:.1f}. '
        'GFLOPs: multiply-adds of convolutions and linear layers.\n'
        f'Latency: median of 30, batch 1, {torch.get_num_threads()} threads, {platform.machine()}, '
        f'torch {torch.__version__}, Python {platform.python_version()}.'
    )

"""Compare a trained checkpoint with its deploy form on the test set: size, cost, accuracy, speed, agreement.

example: mmrepvgg compare repvgg-a0_digits epoch_20.pth deploy.pth
"""

import argparse
import platform
from typing import Any

from ..tables import format_table
from .config_options import add_config, get_config
from .files import require_file

# what to lower where there is not enough memory
MEMORY = '`test_dataloader.batch_size=N`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config with which the checkpoint was trained')
    parser.add_argument('train_checkpoint', help='checkpoint in train form')
    parser.add_argument('deploy_checkpoint', help='checkpoint in deploy form')


def run(args: argparse.Namespace) -> None:
    require_file(args.train_checkpoint)
    require_file(args.deploy_checkpoint)
    cfg = get_config(args, 'test_dataloader')

    from ..reparam.comparison import compare_forms

    result = compare_forms(cfg, args.train_checkpoint, args.deploy_checkpoint)
    print_table(result)
    if result.num_different:
        raise ValueError(
            f'the two forms predict different classes for {result.num_different} of {result.num_images} images; '
            'the deploy checkpoint was not made from this train checkpoint, or the weights are degenerate'
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

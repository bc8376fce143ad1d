"""Count the parameters, multiply-adds (MACs) and activations of a model, stage by stage, in both forms.

example: mmrepvgg flops repvgg-a0_8xb32 --shape 224 224
         mmrepvgg flops --model timm:mobileone_s0
"""

import argparse

from ..progress import starting
from ..tables import format_table
from .arguments import add_size
from .config_options import add_model, get_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, 'config of the model, train or deploy')
    add_size(parser, '--shape', 'height and width of the image, or one number for both (default: 224)', (224, 224))


def run(args: argparse.Namespace) -> None:
    cfg = get_config(args)

    with starting():
        from ..reparam.cost import measure_cost

    for form, deploy in (('train', False), ('deploy', True)):
        rows = [
            [cost.name, f'{cost.params:,}', f'{cost.macs / 1e9:.3f}', f'{cost.activations / 1e6:.3f}']
            for cost in measure_cost(cfg, deploy, args.shape)
        ]
        print(format_table([f'{form} form', 'parameters', 'GMACs', 'activations (M)'], rows) + '\n')
    print(
        f'For one image of {args.shape[0]} x {args.shape[1]} pixels. GMACs: multiply-adds of convolutions and linear '
        'layers (FLOPs are twice that; batch norms, activations and additions are not counted).\n'
        'Activations: elements of the outputs of convolutions and linear layers.'
    )

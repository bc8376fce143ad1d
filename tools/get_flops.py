"""Count the parameters, multiply-adds (MACs) and activations of a model, stage by stage, in both forms.

example: python tools/get_flops.py configs/repvgg/repvgg-a0_8xb32.py --shape 224 224
"""

import argparse
from collections.abc import Sequence
from typing import Any

from mmrepvgg import cli


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model, train or deploy')
    parser.add_argument(
        '--shape',
        nargs='+',
        type=pixels,
        action=Shape,
        default=(224, 224),
        metavar='PIXELS',
        help='height and width of the image, or one number for both (default: 224)',
    )
    cli.add_config_options(parser)
    return parser


class Shape(argparse.Action):
    """Keeps one number, or two, as height and width."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if len(values) > 2:
            parser.error(f'--shape takes one number or two, height and width, got {len(values)}')
        setattr(namespace, self.dest, (values[0], values[-1]))


def pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a positive number of pixels, got {text!r}')
    return int(text)


def main(args: argparse.Namespace) -> None:
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.models.complexity import measure_cost

    for form, deploy in (('train', False), ('deploy', True)):
        print_table(form, measure_cost(cfg, deploy, args.shape))
    print(
        f'For one image of {args.shape[0]} x {args.shape[1]} pixels. GMACs: multiply-adds of convolutions and linear '
        'layers (FLOPs are twice that; batch norms, activations and additions are not counted).\n'
        'Activations: elements of the outputs of convolutions and linear layers.'
    )


def print_table(form: str, costs: Sequence[Any]) -> None:
    print(f'| {form} form | parameters | GMACs | activations (M) |')
    print('|---|---|---|---|')
    for cost in costs:
        print(f'| {cost.name} | {cost.params:,} | {cost.macs / 1e9:.3f} | {cost.activations / 1e6:.3f} |')
    print()


if __name__ == '__main__':
    cli.run(parse(), main)

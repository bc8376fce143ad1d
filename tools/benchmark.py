"""Time networks side by side: forms, runtimes, layouts, precisions, and other implementations.

example: python tools/benchmark.py --archs A0 A2 B1g4 --networks deploy train mmpretrain timm resnet50 resnet101 \\
             --runtimes eager compiled onnxruntime openvino --threads 2 --batch-sizes 16 --out benchmark.json
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from mmrepvgg import cli
from mmrepvgg.benchmark.cases import DEVICES, LAYOUTS, NETWORKS, PRECISIONS, RUNTIMES, plan_cases
from mmrepvgg.models.archs import ARCHS


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    choose(parser, '--archs', list(ARCHS), ['A0'], "RepVGG's archs")
    choose(parser, '--networks', list(NETWORKS), ['deploy', 'train'], "deploy and train are this project's two forms")
    choose(parser, '--runtimes', list(RUNTIMES), ['eager'], 'what runs them')
    choose(parser, '--layouts', list(LAYOUTS), list(LAYOUTS), 'of tensors in PyTorch')
    choose(parser, '--precisions', list(PRECISIONS), ['fp32'], 'what they compute in')
    choose(parser, '--devices', list(DEVICES), ['cpu'], 'where')
    parser.add_argument(
        '--threads',
        nargs='+',
        type=cli.positive_int,
        default=[os.cpu_count() or 1],
        metavar='N',
        help='numbers of CPU threads (default: as many as there are cores)',
    )
    parser.add_argument(
        '--batch-sizes',
        nargs='+',
        type=cli.positive_int,
        default=[16],
        metavar='N',
        help='images in a batch (default: 16)',
    )
    parser.add_argument(
        '--input-size', type=cli.positive_int, default=224, metavar='PIXELS', help='height and width (default: 224)'
    )
    parser.add_argument('--repeats', type=cli.positive_int, default=10, metavar='N', help='timed rounds (default: 10)')
    parser.add_argument(
        '--warm-up', type=cli.positive_int, default=2, metavar='N', help='rounds before them (default: 2)'
    )
    parser.add_argument(
        '--budget',
        type=cli.positive_int,
        default=60,
        metavar='SECONDS',
        help='for each row; a row that used it up is not timed again (default: 60)',
    )
    parser.add_argument('--out', type=ending('.json'), help='write everything, raw times too, to this JSON file')
    parser.add_argument('--plot', type=ending('.png'), help='draw a bar chart')
    return parser


def choose(parser: argparse.ArgumentParser, option: str, allowed: list[str], default: list[str], what: str) -> None:
    parser.add_argument(
        option,
        nargs='+',
        choices=allowed,
        default=default,
        metavar=option[2:].upper().rstrip('S'),
        help=f'{what}: any of {", ".join(allowed)} (default: {" ".join(default)})',
    )


def ending(suffix: str) -> Callable[[str], Path]:
    def check(name: str) -> Path:
        if Path(name).suffix != suffix:
            raise argparse.ArgumentTypeError(f'must end in {suffix}, got {name!r}')
        return Path(name)

    return check


def main(args: argparse.Namespace) -> None:
    cli.require_writable(args.out, args.plot)
    cases = plan_cases(
        args.archs,
        args.networks,
        args.runtimes,
        args.layouts,
        args.precisions,
        args.devices,
        args.threads,
        args.batch_sizes,
    )
    from mmrepvgg.benchmark.report import format_report, write_json
    from mmrepvgg.benchmark.run import run_benchmark

    report = run_benchmark(cases, args.input_size, args.repeats, args.warm_up, args.budget)
    command = shlex.join(['python', *sys.argv])
    print(format_report(report, command))
    if args.out:
        write_json(report, command, args.out)
        print(f'{args.out}: written')
    if args.plot:
        from mmrepvgg.benchmark.chart import draw_chart

        draw_chart(report, args.plot)
        print(f'{args.plot}: written')
    if all(row.error for row in report.rows):
        raise RuntimeError(f'no row could be timed; the first one: {report.rows[0].error}')


if __name__ == '__main__':
    cli.run(parse(), main)

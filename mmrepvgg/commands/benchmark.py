"""Time networks side by side: forms, runtimes, layouts, precisions, and other implementations.

example: mmrepvgg benchmark --archs A0 A2 B1g4 --networks deploy train mmpretrain timm resnet50 resnet101 \\
             --runtimes eager compiled onnxruntime openvino --threads 2 --batch-sizes 16 --out benchmark.json
         mmrepvgg benchmark --recommend --archs A0
         mmrepvgg benchmark --model timm:mobileone_s0 --networks deploy train timm
"""

import argparse
import os
from collections.abc import Iterable
from typing import Any

from ..benchmark.cases import (
    DEVICES,
    LAYOUTS,
    NAMED,
    NETWORKS,
    PRECISIONS,
    RUNTIMES,
    drop_other_train_forms,
    plan_cases,
)
from ..checkpoints.writing import require_writable
from ..models.archs import ARCHS
from ..progress import starting, working
from .arguments import add_choices, add_output, positive_int
from .config_options import parse_model_name
from .errors import translate

# What is timed where the user does not say it, and with --recommend.
_DEFAULTS: dict[str, list[Any]] = dict(
    networks=['deploy', 'train'], runtimes=['eager'], layouts=[*LAYOUTS], precisions=['fp32'], batch_sizes=[16]
)
_RECOMMENDED: dict[str, list[Any]] = dict(
    networks=['deploy', 'train'],
    runtimes=['eager', *(name for name, runtime in RUNTIMES.items() if runtime.takes_files)],
    layouts=['nchw'],
    precisions=['fp32', 'int8'],
    batch_sizes=[1],
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--recommend',
        action='store_true',
        help='find the fastest file of each precision on this machine: what is not given is then --runtimes '
        f'{" ".join(_RECOMMENDED["runtimes"])} (those that are not installed are named), --precisions fp32 int8, '
        '--layouts nchw, --batch-sizes 1',
    )
    add_choices(parser, '--archs', ARCHS, ['A0'], "RepVGG's archs")
    parser.set_defaults(archs=None)
    parser.add_argument(
        '--model',
        nargs='+',
        type=parse_model_name,
        default=[],
        metavar='SYSTEM:NAME',
        help='models of timm or mmpretrain, instead of RepVGG or beside --archs: timm:mobileone_s0. Of --networks they '
        f'have {", ".join(NAMED)} (timm: as timm itself switches its models)',
    )
    _add_choices(parser, '--networks', NETWORKS, "deploy and train are this project's two forms")
    _add_choices(parser, '--runtimes', RUNTIMES, 'how the networks are run')
    _add_choices(parser, '--layouts', LAYOUTS, 'layouts of tensors in PyTorch')
    _add_choices(parser, '--precisions', PRECISIONS, 'precisions in which they compute')
    add_choices(parser, '--devices', DEVICES, ['cpu'], 'devices on which they run')
    parser.add_argument(
        '--threads',
        nargs='+',
        type=positive_int,
        default=[os.cpu_count() or 1],
        metavar='N',
        help='numbers of CPU threads (default: as many as there are cores)',
    )
    parser.add_argument(
        '--batch-sizes',
        nargs='+',
        type=positive_int,
        metavar='N',
        help='images in a batch (default: 16)',
    )
    parser.add_argument(
        '--input-size', type=positive_int, default=224, metavar='PIXELS', help='height and width (default: 224)'
    )
    parser.add_argument('--repeats', type=positive_int, default=10, metavar='N', help='timed rounds (default: 10)')
    parser.add_argument('--warm-up', type=positive_int, default=2, metavar='N', help='rounds before them (default: 2)')
    parser.add_argument(
        '--budget',
        type=positive_int,
        default=60,
        metavar='SECONDS',
        help='time for each row; a row that used it up is not timed again (default: 60)',
    )
    add_output(parser, '--out', ['.json'], 'write everything, raw times too, to this file')
    add_output(parser, '--plot', ['.png'], 'draw a bar chart')


def _add_choices(parser: argparse.ArgumentParser, option: str, allowed: Iterable[str], help: str) -> None:
    """Add an option whose default depends on --recommend."""
    name = option.removeprefix('--').replace('-', '_')
    add_choices(parser, option, allowed, _DEFAULTS[name], help)
    parser.set_defaults(**{name: None})


def run(args: argparse.Namespace) -> None:
    require_writable(args.out, args.plot)
    defaults = _RECOMMENDED if args.recommend else _DEFAULTS
    chosen = {name: getattr(args, name) or default for name, default in defaults.items()}
    archs = [*(args.archs or ([] if args.model else ['A0'])), *args.model]
    cases = plan_cases(archs=archs, devices=args.devices, threads=args.threads, **chosen)
    if args.recommend:
        cases = drop_other_train_forms(cases)
    with starting():
        from ..benchmark.report import format_report, write_json
        from ..benchmark.run import run_benchmark

    with working('timing'):
        report = run_benchmark(
            cases, input_size=args.input_size, repeats=args.repeats, warm_up=args.warm_up, budget=args.budget
        )
    print(translate(format_report(report, args.command_line), add_arguments))
    if args.out:
        write_json(report, args.command_line, args.out)
        print(f'{args.out}: written')
    if args.plot:
        from ..benchmark.chart import draw_chart

        draw_chart(report, args.plot)
        print(f'{args.plot}: written')
    if all(row.error for row in report.rows):
        raise RuntimeError(f'no row could be timed; the error of the first one: {report.rows[0].error}')

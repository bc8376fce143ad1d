"""Test a checkpoint (the train form with the train config, the deploy form with the deploy one) or an exported file.

example: python tools/test.py configs/repvgg/deploy/repvgg-a0_deploy.py repvgg-a0_deploy.pth --metrics accuracy
         python tools/test.py configs/repvgg/repvgg-a0_8xb32.py repvgg-a0.onnx --metrics accuracy
"""

import argparse
from pathlib import Path

from mmrepvgg import cli
from mmrepvgg.runtimes.table import find_format, is_exported

# The keys of mmrepvgg.engine.metrics.METRICS; importing that would import torch before a usage error shows.
METRICS = ['accuracy', 'precision', 'recall', 'f1-score', 'support', 'confusion-matrix']


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model and its data')
    parser.add_argument('checkpoint', help='weights in the form of the config, or a file of tools/export.py')
    parser.add_argument(
        '--metrics', nargs='+', choices=METRICS, default=[], help="what to measure (default: the config's evaluator)"
    )
    parser.add_argument('--out', type=cli.json_file, help='write the metrics and every prediction to this JSON file')
    parser.add_argument('--work-dir', help='folder for logs (default: work_dirs/<name of the config>)')
    cli.add_config_options(parser)
    cli.add_launcher(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    cli.require_writable(args.out)
    cli.require_file(args.checkpoint)
    if is_exported(args.checkpoint):
        find_format(args.checkpoint).require_packages(write=False)
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.data.layout import check_data

    check_data(cfg, ['test_dataloader'])

    from mmrepvgg.engine.testing import evaluate

    results = evaluate(
        cfg,
        args.checkpoint,
        args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}',
        metrics=args.metrics,
        out=args.out,
        launcher=args.launcher,
        exported=is_exported(args.checkpoint),
    )
    for name, value in results.items():
        print(f'{name}: {value:.4f}' if isinstance(value, float) else f'{name}: {value}')


if __name__ == '__main__':
    cli.run(parse(), main)

"""Test a checkpoint (the train form with the train config, the deploy form with the deploy one) or an exported file.

example: mmrepvgg test repvgg-a0_deploy repvgg-a0_deploy.pth --metrics accuracy
         mmrepvgg test repvgg-a0_8xb32 repvgg-a0.onnx --metrics accuracy
         mmrepvgg test --model timm:mobileone_s0 --checkpoint mobileone.onnx --data data/imagenet/val
         torchrun --nproc-per-node 4 -m mmrepvgg test repvgg-a0_8xb32 repvgg-a0.onnx --launcher pytorch
"""

import argparse

from ..checkpoints.writing import require_writable
from ..engine.metric_names import METRICS
from ..progress import starting, working
from ..runtimes.table import list_suffixes
from .arguments import add_output, list_endings
from .config_options import (
    add_data,
    add_launcher,
    add_model,
    add_work_dir,
    get_config,
    get_work_dir,
    require_model_usage,
)
from .files import require_weights

# what to lower where there is not enough memory
MEMORY = '`test_dataloader.batch_size=N`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        'config of the model and its data',
        f'weights in the form of the config, or an exported file ({list_endings(list_suffixes())})',
    )
    add_data(parser, 'test images in class folders')
    parser.add_argument(
        '--metrics', nargs='+', choices=METRICS, default=[], help="what to measure (default: the config's evaluator)"
    )
    add_output(parser, '--out', ['.json'], 'write the metrics and every prediction to this file')
    add_work_dir(parser, 'logs')
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    require_model_usage(args, data=True)
    require_writable(args.out)
    require_weights(args.checkpoint)
    cfg = get_config(args, 'test_dataloader')

    with starting():
        from mmengine.dist import is_main_process

        from ..engine.testing import evaluate
        from ..runtimes.classifier import make_tested

    with working('testing'):
        results = evaluate(
            cfg,
            make_tested(cfg, args.checkpoint),
            get_work_dir(args, cfg),
            metrics=args.metrics,
            out=args.out,
            launcher=args.launcher,
        )
    for name, value in results.items() if is_main_process() else ():
        print(f'{name}: {value:.4f}' if isinstance(value, float) else f'{name}: {value}')

"""Train RepVGGs in different ways, quantize them, and show what int8 keeps, what decides it, and what helps.

The study of docs/quantization.md. After an interruption the same command continues it.

example: python tools/quantization_study.py --work-dir work_dirs/quantization-study --jobs 2
         python tools/quantization_study.py --config repvgg-a0_8xb32 --data data/imagenet \\
             --work-dir work_dirs/imagenet-study
"""

import argparse
from pathlib import Path
from typing import Any

from mmrepvgg.checkpoints.writing import replacing, require_writable
from mmrepvgg.commands.arguments import add_choices, add_output, positive_float, positive_int
from mmrepvgg.commands.config_options import add_config_options, get_config
from mmrepvgg.runtimes.table import FORMATS

from .subjects import KINDS, RECIPES, list_subjects


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--config', default='repvgg-a0_digits', help='config of a RepVGG and its data (default: %(default)s)'
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='ROOT',
        help="folder with train/<class>/<image> and val/<class>/<image> instead of the config's",
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default='work_dirs/quantization-study',
        help='folder for the models (default: %(default)s)',
    )
    add_output(parser, '--out', ['.md'], 'write the tables to this file, too')
    add_choices(parser, '--recipes', RECIPES, RECIPES, 'ways to train')
    add_choices(parser, '--kinds', KINDS, KINDS, 'models')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='SEED', help='(default: 0 1 2)')
    parser.add_argument('--jobs', type=positive_int, default=1, metavar='N', help='models at a time (default: 1)')
    parser.add_argument(
        '--min-accuracy',
        type=positive_float,
        metavar='PERCENT',
        help='train a model below this accuracy in float32 again, with 50%% more epochs, at most twice',
    )
    parser.add_argument(
        '--max-epochs', type=positive_int, metavar='N', help='largest number of epochs of a training, for a trial'
    )
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    # one name in the work dir is enough to check it
    require_writable(args.out, args.work_dir / 'log.txt')
    cfg = get_config(args)
    if args.data is not None:
        use_data(cfg, args.data)

    for row in FORMATS:
        for quantizer in row.quantizers:
            quantizer.require_packages(row)

    from mmrepvgg.data.layout import check_data

    check_data(cfg, ['train_dataloader', 'val_dataloader', 'test_dataloader'])

    from .report import format_study
    from .run import run_study
    from .training import Plan

    subjects = list_subjects(args.recipes, args.kinds, args.seeds)
    plan = Plan(args.min_accuracy, args.max_epochs)
    text = format_study(run_study(cfg, subjects, args.work_dir, plan, jobs=args.jobs), args.min_accuracy)
    print(text)
    if args.out:
        with replacing(args.out) as temporary:
            temporary.write_text(text + '\n')
        print(f'{args.out}: written')


def use_data(cfg: Any, root: Path) -> None:
    """Point the config at another folder of ImageNet's layout, of any number of classes."""
    classes = [path for path in (root / 'train').glob('*') if path.is_dir()]
    if not classes:
        raise FileNotFoundError(f'{root}/train has no class folders; expected {root}/train/<class>/<image>')
    cfg.model.head.num_classes = cfg.data_preprocessor.num_classes = len(classes)
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(type='CustomDataset', data_root=str(root), data_prefix=split)
        for setting in ('split', 'indices'):
            dataset.pop(setting, None)
    # a top-5 among fewer classes would be an error
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=(1,))
    cfg.model.head.topk = (1,)

"""Quantize models, as they are and equalized, by toolchains that are not this project's, and run what they made.

The study of docs/quantization.md, section "Other quantizers". ONNX Runtime and NNCF are run by this Python, the others
by environments of their own, which `make toolchains` makes. A toolchain without its environment is left out. After an
interruption the same command continues.

example: python tools/toolchain_study.py work_dirs/quantization-study/steep_repvgg_* --data data/digits/train
         python tools/toolchain_study.py --config repvgg-a0_8xb32 repvgg-a0.pth --toolchains onnxruntime rknn
"""

import argparse
from pathlib import Path

from mmrepvgg.checkpoints.writing import replacing, require_writable
from mmrepvgg.commands.arguments import add_choices, add_output, positive_int
from mmrepvgg.commands.config_options import add_config_options, get_config
from mmrepvgg.commands.files import require_path

from .adapters.frame import MODES
from .models import list_models
from .toolchains import TOOLCHAINS, Environment, Toolchain, find_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'models',
        nargs='+',
        type=Path,
        metavar='MODEL',
        help='checkpoint in train form, or a folder that tools/quantization_study.py wrote',
    )
    parser.add_argument(
        '--environments',
        type=Path,
        metavar='FOLDER',
        default='.venv-toolchains',
        help='folder with the environments of toolchains, named like them (default: %(default)s)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default='work_dirs/toolchain-study',
        help='folder for files, outputs and logs (default: %(default)s)',
    )
    add_choices(parser, '--toolchains', TOOLCHAINS, TOOLCHAINS, 'toolchains')
    add_choices(parser, '--modes', MODES, MODES, 'float, and scales of weights in int8')
    add_output(parser, '--out', ['.md'], 'write the table to this file, too')
    parser.add_argument(
        '--num-samples',
        type=positive_int,
        default=300,
        metavar='N',
        help='training images for the calibration (default: %(default)s)',
    )
    parser.add_argument(
        '--data',
        type=Path,
        metavar='PATH',
        help='image or folder of images to equalize by, as in mmrepvgg export (default: the weights alone)',
    )
    parser.add_argument(
        '--config', default='repvgg-a0_digits', help='config of the models and their data (default: %(default)s)'
    )
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    # one name in the work dir is enough to check it
    require_writable(args.out, args.work_dir / 'images')
    require_path(args.data)
    models = list_models(args.models)
    environments, missing = find_environments([TOOLCHAINS[name] for name in args.toolchains], args.environments)
    cfg = get_config(args, 'train_dataloader', 'test_dataloader')

    from .report import format_report
    from .run import run_study

    results = run_study(cfg, models, environments, args.modes, args.work_dir, args.num_samples, args.data)
    text = format_report(results, missing)
    print(text)
    if args.out:
        with replacing(args.out) as temporary:
            temporary.write_text(text + '\n')
        print(f'{args.out}: written')
    if failures := [result for result in results if result.failure]:
        first = failures[0]
        raise RuntimeError(f'{len(failures)} of {len(results)} runs failed. {first.run}: {first.failure}')


def find_environments(toolchains: list[Toolchain], root: Path) -> tuple[list[Environment], dict[Toolchain, str]]:
    """Find the environments of toolchains, and why others can't be run.

    Raises:
        FileNotFoundError: If there is none.
    """
    environments, missing = [], {}
    for toolchain in toolchains:
        try:
            environments.append(find_environment(toolchain, root))
        except FileNotFoundError as error:
            missing[toolchain] = str(error)
    if not environments:
        raise FileNotFoundError(f'no toolchain can be run: {"; ".join(missing.values())}. make toolchains makes them')
    return environments, missing

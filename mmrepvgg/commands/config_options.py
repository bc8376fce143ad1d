"""The arguments of several commands about configs: CONFIG, its settings, the work dir and the launcher."""

import argparse
from pathlib import Path
from typing import Any

from ..progress import starting
from ..zoo.configs import load_config


def add_config(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the positional CONFIG, and ``--cfg-options``."""
    parser.add_argument('config', help=f'{help}: a file, or a name like repvgg-a0_8xb32')
    add_config_options(parser)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        type=_setting,
        default=[],
        help='change settings of the config, for example train_cfg.max_epochs=10 "model.backbone.strides=[1,2,2,2]"',
    )


def get_config(args: argparse.Namespace, *dataloaders: str) -> Any:
    """Load the config that the user gave, and check that the data of these dataloaders exists."""
    with starting():
        cfg = load_config(args.config, args.cfg_options)
        if dataloaders:
            from ..data.layout import check_data

            check_data(cfg, dataloaders)
    return cfg


def add_work_dir(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument('--work-dir', help=f'folder for {help} (default: work_dirs/<name of the config>)')


def get_work_dir(args: argparse.Namespace, cfg: Any) -> str:
    """The folder that the user gave; or that of the config; or one with the name of the config."""
    return args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(cfg.filename).stem}'


def add_launcher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run (pytorch: torchrun, slurm: srun, mpi: mpirun)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def _setting(text: str) -> str:
    key, separator, _ = text.partition('=')
    if not separator or not key:
        raise argparse.ArgumentTypeError(f'must be KEY=VALUE, got {text!r}')
    return text

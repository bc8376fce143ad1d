"""The arguments of several commands about configs: CONFIG or a model, its settings, the work dir and the launcher."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..progress import starting
from ..zoo.configs import load_config
from ..zoo.named_models import SYSTEMS, download_weights, load_model_config, split_model_name
from .errors import UsageError

# Where the namespace keeps a --checkpoint that was given without --model.
_LONE_CHECKPOINT = 'lone_checkpoint'


def add_config(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the positional CONFIG, and ``--cfg-options``."""
    parser.add_argument('config', help=f'{help}: a file, or a name like repvgg-a0_8xb32')
    add_config_options(parser)


def add_model(
    parser: argparse.ArgumentParser,
    help: str,
    checkpoint: str = '',
    name: str = 'checkpoint',
    metavar: str | None = None,
) -> None:
    """Add the positionals CONFIG and CHECKPOINT, and ``--cfg-options``; or, for a model by name, options instead.

    Args:
        parser: The parser.
        help: Help of CONFIG.
        checkpoint: Help of CHECKPOINT; empty if the command takes none.
        name: Name of CHECKPOINT, for the library and the namespace.
        metavar: Its name in the help, if that is another.
    """
    by_model = parser.get_default('by_model')
    if by_model:
        parser.set_defaults(checkpoint_name=name)
    else:
        parser.add_argument('config', help=f'{help}: a file, or a name like repvgg-a0_8xb32')
        if checkpoint:
            parser.add_argument(name, metavar=metavar, help=checkpoint)
    group = parser.add_argument_group(
        f'for models of other projects, in place of CONFIG{" and CHECKPOINT" * bool(checkpoint)}'
    )
    group.add_argument(
        '--model',
        type=parse_model_name,
        metavar='SYSTEM:NAME',
        help=f'model of {" or ".join(SYSTEMS)}: timm:mobileone_s0',
    )
    if checkpoint:
        group.add_argument(
            '--checkpoint',
            dest=name if by_model else _LONE_CHECKPOINT,
            metavar='FILE',
            help="its weights, or what this project has made of them (default: the system's own are downloaded)",
        )
    add_config_options(parser)


def add_data(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the option for the images of a model by name."""
    parser.add_argument('--data', metavar='DIR', help=f'with --model: {help}')


def parse_model_name(text: str) -> str:
    """Check that a model is one of a known system."""
    try:
        split_model_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).replace('`model` ', '')) from None
    return text


def names_model(argv: Iterable[str]) -> bool:
    """Whether the arguments name a model by ``--model``, so that there is no CONFIG among them."""
    return any(each.partition('=')[0] == '--model' for each in argv)


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


def require_model_usage(args: argparse.Namespace, data: bool | None = None) -> None:
    """Check that options of a model by name go with ``--model``. To be called before anything slow.

    Args:
        args: The arguments.
        data: Whether the model needs ``--data``; None if the command has that option for other models, too.

    Raises:
        UsageError: If they do not.
    """
    if not args.by_model and getattr(args, _LONE_CHECKPOINT, None):
        raise UsageError('--checkpoint goes with --model; with a config the checkpoint is the second argument')
    if not args.by_model and data is not None and args.data:
        raise UsageError('--data goes with --model; a config names its own data')
    if args.by_model and data and not args.data:
        raise UsageError('--model needs --data DIR, a folder of images')


def get_config(args: argparse.Namespace, *dataloaders: str) -> Any:
    """Load the config that the user gave, and check that the data of these dataloaders exists.

    For a model by name without ``--checkpoint`` the weights are downloaded first.
    """
    with starting():
        cfg = _load_by_model(args) if args.by_model else load_config(args.config, args.cfg_options)
        if dataloaders:
            from ..data.layout import check_data

            check_data(cfg, dataloaders)
    return cfg


def _load_by_model(args: argparse.Namespace) -> Any:
    if hasattr(args, args.checkpoint_name) and getattr(args, args.checkpoint_name) is None:
        setattr(args, args.checkpoint_name, download_weights(args.model))
    checkpoint = getattr(args, args.checkpoint_name, None)
    return load_model_config(
        args.model, checkpoint=checkpoint, data=getattr(args, 'data', None), options=args.cfg_options
    )


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

"""Train a model.

example: mmrepvgg train repvgg-a0_8xb32
         torchrun --nproc-per-node 8 -m mmrepvgg train repvgg-a0_8xb32 --launcher pytorch

At its end it writes report.html into the work dir, a page about the training, as `mmrepvgg report` does.

SIGTERM, SIGINT (Ctrl-C) and SIGHUP end the training after the current iteration, with a checkpoint from which --resume
goes on. The exit status is then 143, 130 or 129. A second signal ends it at once.
"""

import argparse
import shlex
import sys

from ..progress import starting, working
from .config_options import add_config, add_launcher, add_work_dir, get_config, get_work_dir
from .errors import describe, translate
from .files import require_file

# what to lower where there is not enough memory
MEMORY = '`train_dataloader.batch_size=N` or `val_dataloader.batch_size=N`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, 'config of the model, its data and its schedule')
    add_work_dir(parser, 'logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const=True,
        metavar='CKPT',
        help='go on from CKPT, or from the latest whole one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on GPUs, bfloat16 on CPUs')
    parser.add_argument(
        '--compile', action='store_true', help='compile the backbone: faster steps, after a first one of minutes'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the total batch size over the config's own (ImageNet: 256)",
    )
    parser.add_argument('--tensorboard', action='store_true', help='write the log for TensorBoard too')
    parser.add_argument(
        '--skip-damaged',
        action='store_true',
        help='go on without images that can not be read, and log them at the end of each epoch',
    )
    parser.add_argument('--no-report', action='store_true', help='write no page about the training at its end')
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    if isinstance(args.resume, str):
        require_file(args.resume)
    cfg = get_config(args, 'train_dataloader', 'val_dataloader')

    with starting():
        from mmengine.dist import is_main_process

        from ..engine.stopping import TrainingStopped
        from ..engine.training import train

    work_dir = get_work_dir(args, cfg)
    try:
        checkpoint = train(
            cfg,
            work_dir,
            resume=args.resume or False,
            amp=args.amp,
            compile=args.compile,
            auto_scale_lr=args.auto_scale_lr,
            tensorboard=args.tensorboard,
            skip_damaged=args.skip_damaged,
            launcher=args.launcher,
        )
    except TrainingStopped as stop:
        if is_main_process():
            print(translate(str(stop), add_arguments), file=sys.stderr)
        sys.exit(stop.status)
    if is_main_process():
        print(f'trained: {checkpoint or "no checkpoint was written, as the config asks"}', flush=True)
        if checkpoint and not args.no_report:
            _write_report(work_dir, checkpoint)


def _write_report(work_dir: str, checkpoint: str) -> None:
    """Write the page about a training that has ended well; an error here must not make it a failure."""
    from ..report.source import UnfitModelError

    try:
        with working('writing the report'):
            from ..report.writing import write_report

            # files in the folder are of an earlier training
            path = write_report(work_dir, checkpoint=checkpoint, exported=())
    except UnfitModelError:  # a detector, for example
        return
    except Exception as error:
        command = shlex.join(['mmrepvgg', 'report', work_dir])
        print(f'no report: {describe(error, add_arguments, MEMORY)}; try again: {command}', file=sys.stderr)
    else:
        print(f'report: {path}', file=sys.stderr)

"""Train a model.

example: python tools/train.py configs/repvgg/repvgg-a0_8xb32.py
         torchrun --nproc-per-node 8 tools/train.py configs/repvgg/repvgg-a0_8xb32.py --launcher pytorch
"""

import argparse
from pathlib import Path

from mmrepvgg import cli


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model, its data and its schedule')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--resume', nargs='?', const=True, metavar='CKPT', help='go on from CKPT, or from the latest in the work dir'
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on GPUs, bfloat16 on CPUs')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by the total batch size over 256'
    )
    cli.add_config_options(parser)
    cli.add_launcher(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    if isinstance(args.resume, str):
        cli.require_file(args.resume)
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.data.layout import check_data

    check_data(cfg, ['train_dataloader', 'val_dataloader'])

    from mmrepvgg.engine.training import train

    checkpoint = train(
        cfg,
        args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}',
        resume=args.resume or cfg.get('resume', False),
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        launcher=args.launcher,
    )
    print(f'trained: {checkpoint}')


if __name__ == '__main__':
    cli.run(parse(), main)

"""Write a config's test images, preprocessed, as .npz or .npy files for hardware without Python.

The folder also gets list.csv (name, file, row, label, image) and info.json. tools/score_outputs.py scores what comes
back.

example: python tools/export_inputs.py configs/repvgg/repvgg-a0_8xb32.py inputs/
         python tools/export_inputs.py configs/repvgg/repvgg-a0_8xb32.py inputs/ --format npy --batch-size 32 --fill
"""

import argparse

from mmrepvgg import cli

# FORMATS and DTYPES of mmrepvgg.handoff.preprocessed; importing that would import torch before a usage error shows.
FORMATS = ['npz', 'npy']
DTYPES = ['float32', 'float16', 'uint8']


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model and its data')
    parser.add_argument('folder', metavar='out_dir', help='folder to write')
    parser.add_argument('--format', choices=FORMATS, default='npz', help='kind of the files (default: npz)')
    parser.add_argument(
        '--batch-size', type=cli.positive_int, default=1, metavar='N', help='images of a file (default: 1)'
    )
    parser.add_argument('--fill', action='store_true', help='fill the last file with zeros to the batch size')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='uint8: pixels (BGR) for a model that normalises by itself (default: float32)',
    )
    parser.add_argument(
        '--entry',
        default='images',
        metavar='NAME',
        help='name in the .npz: that of the input of the model (default: images, as in files of tools/export.py)',
    )
    cli.add_config_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.data.layout import check_data

    check_data(cfg, ['test_dataloader'])

    from mmrepvgg.handoff.preprocessed import write_inputs

    result = write_inputs(
        cfg,
        args.folder,
        file_format=args.format,
        batch_size=args.batch_size,
        dtype=args.dtype,
        fill=args.fill,
        entry=args.entry,
    )
    shape = ' x '.join(map(str, result.shape))
    print(f'{args.folder}: {result.num_images} images in {result.num_files} {args.format} files of {shape}')


if __name__ == '__main__':
    cli.run(parse(), main)

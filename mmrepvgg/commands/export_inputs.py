"""Write a config's test images, preprocessed, as .npz or .npy files for hardware without Python.

The folder also gets list.csv (name, file, row, label, image) and info.json. mmrepvgg score-outputs scores what comes
back.

example: mmrepvgg export-inputs repvgg-a0_8xb32 inputs/
         mmrepvgg export-inputs repvgg-a0_8xb32 inputs/ --format npy --batch-size 32 --fill
"""

import argparse
from pathlib import Path

from ..checkpoints.writing import require_writable
from ..handoff.listing import DTYPES, FORMATS
from ..progress import starting, working
from .arguments import positive_int
from .config_options import add_data, add_model, get_config, require_model_usage

# what to lower where there is not enough memory
MEMORY = '`batch_size`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, 'config of the model and its data')
    add_data(parser, 'test images, in class folders if there are labels')
    parser.add_argument('folder', metavar='out_dir', help='folder to write')
    parser.add_argument(
        '--format', dest='file_format', choices=FORMATS, default='npz', help='kind of the files (default: npz)'
    )
    parser.add_argument('--batch-size', type=positive_int, default=1, metavar='N', help='images of a file (default: 1)')
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
        help='name of the entry of an .npz, like the input of the model (default: images, as in mmrepvgg export)',
    )


def run(args: argparse.Namespace) -> None:
    require_model_usage(args, data=True)
    # one name in the folder is enough to check it
    require_writable(Path(args.folder, 'inputs'))
    cfg = get_config(args, 'test_dataloader')

    with starting():
        from ..handoff.preprocessed import write_inputs

    with working('writing'):
        result = write_inputs(
            cfg,
            args.folder,
            file_format=args.file_format,
            batch_size=args.batch_size,
            dtype=args.dtype,
            fill=args.fill,
            entry=args.entry,
        )
    shape = ' x '.join(map(str, result.shape))
    print(f'{args.folder}: {result.num_images} images in {result.num_files} {args.file_format} files of {shape}')

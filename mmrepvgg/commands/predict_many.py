"""Predict folders of any size in many processes, by Ray: images in, Parquet files out.

Images that can't be read are rows with an error. The same command takes up an interrupted run: whole files stay. With
--cluster the workers are on all machines of a Ray cluster, which must share the images, the weights and the folder.

example: mmrepvgg predict-many repvgg-a0_8xb32 repvgg-a0.onnx photos/ --out predictions --workers 8
         mmrepvgg predict-many repvgg-a0_8xb32 epoch_120.pth /shared/photos --out /shared/predictions --cluster
"""

import argparse

from ..progress import starting, working
from ..runtimes.table import list_suffixes
from .arguments import list_endings, positive_int
from .config_options import add_model, get_config, require_model_usage
from .files import require_path, require_weights

# what to lower where there is not enough memory
MEMORY = '`workers` or `batch_size`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        'config of the model, whose test pipeline reads the images',
        f'checkpoint in either form, or an exported file ({list_endings(list_suffixes())})',
        name='weights',
    )
    parser.add_argument('images', nargs='+', help='images, and folders of images (with their subfolders)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the Parquet files')
    parser.add_argument(
        '--workers', type=positive_int, metavar='N', help='processes that predict (default: one a GPU, or one a 4 CPUs)'
    )
    parser.add_argument(
        '--cluster', action='store_true', help='use the Ray cluster to which this machine belongs (default: it alone)'
    )
    parser.add_argument('--topk', type=positive_int, default=5, metavar='K', help='classes to give (default: 5)')
    parser.add_argument('--batch-size', type=positive_int, default=16, metavar='N', help='batch size (default: 16)')
    parser.add_argument(
        '--part-size', type=positive_int, default=1024, metavar='N', help='images in a Parquet file (default: 1024)'
    )


def run(args: argparse.Namespace) -> None:
    require_model_usage(args)
    require_weights(args.weights)
    for image in args.images:
        require_path(image)
    cfg = get_config(args)

    with starting():
        from ..prediction.many import predict_many

    with working('predicting'):
        done = predict_many(
            cfg,
            args.weights,
            args.images,
            args.out,
            workers=args.workers,
            cluster=args.cluster,
            topk=args.topk,
            batch_size=args.batch_size,
            part_size=args.part_size,
        )
    kept = f' ({done.num_kept} were there already)' if done.num_kept else ''
    print(
        f'{done.folder}: {done.num_images - done.num_unreadable} images predicted, {done.num_unreadable} unreadable; '
        f'{done.num_parts} Parquet files{kept}'
    )
    if done.num_unreadable == done.num_images:
        raise ValueError(f'none of the {done.num_images} images could be read')

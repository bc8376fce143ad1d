"""Predict images with a checkpoint or an exported file: the best classes of each.

One line an image on stdout, or a JSON or CSV file. Unreadable images are listed at the end and don't stop the run;
exit status 1 if none could be read.

example: mmrepvgg predict repvgg-a0_8xb32 repvgg-a0.onnx photos/ --out predictions.json
         mmrepvgg predict repvgg-a0_8xb32 epoch_120.pth cat.jpg dog.jpg --show-dir annotated
         mmrepvgg predict --model timm:mobileone_s0 --checkpoint mobileone.onnx photos/
         torchrun --nproc-per-node 4 -m mmrepvgg predict repvgg-a0_8xb32 repvgg-a0.onnx photos/ --launcher pytorch
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.writing import require_writable
from ..printable import make_printable
from ..progress import starting, working
from ..runtimes.table import list_suffixes
from .arguments import add_output, list_endings, positive_int
from .config_options import add_launcher, add_model, get_config, require_model_usage
from .files import require_path, require_weights

# what to lower where there is not enough memory
MEMORY = '`batch_size`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        'config of the model, whose test pipeline reads the images',
        f'checkpoint in either form, or an exported file ({list_endings(list_suffixes())})',
        name='weights',
    )
    parser.add_argument('images', nargs='+', help='images, and folders of images (with their subfolders)')
    parser.add_argument('--topk', type=positive_int, default=5, metavar='K', help='classes to give (default: 5)')
    parser.add_argument('--batch-size', type=positive_int, default=16, metavar='N', help='batch size (default: 16)')
    add_output(parser, '--out', ['.json', '.csv'], 'write the predictions to this file')
    parser.add_argument('--show-dir', metavar='DIR', help='write annotated copies of the images to this folder')
    add_launcher(parser)


def run(args: argparse.Namespace) -> None:
    require_model_usage(args)
    require_weights(args.weights)
    # one name in the folder is enough to check it
    require_writable(args.out, args.show_dir and Path(args.show_dir, 'picture.png'))
    for image in args.images:
        require_path(image)
    cfg = get_config(args)

    with starting():
        from mmengine.dist import is_main_process

        from ..data.images import list_images
        from ..data.transparency import warn_of_transparency
        from ..data.wrappers import get_test_pipeline
        from ..prediction.predictor import Predictor
        from ..progress import track

    images = list_images(args.images, args.show_dir)
    warn_of_transparency([str(image) for image, _ in images], get_test_pipeline(cfg))
    writer = None
    if args.show_dir is not None:
        from ..prediction.pictures import PictureWriter

        writer = PictureWriter(args.show_dir, images)
    with working('reading the model'):
        predictor = Predictor(cfg, args.weights, topk=args.topk, batch_size=args.batch_size, launcher=args.launcher)
    # mmengine's visualizer draws in the main process only, which has the others' predictions at the end
    draw = writer.write if writer else None
    predictions = predictor.predict([image for image, _ in images], draw if args.launcher == 'none' else None)
    if is_main_process():
        if draw and args.launcher != 'none':
            for number, prediction in enumerate(track(predictions, 'drawing')):
                draw(number, prediction)
        report(args, predictions, writer.failures if writer else {})


def report(args: argparse.Namespace, predictions: Sequence[Any], unwritten: dict[Path, str]) -> None:
    unreadable = [prediction for prediction in predictions if prediction.error]
    num_read = len(predictions) - len(unreadable)
    if args.out is not None:
        from ..prediction.files import write_predictions

        write_predictions(args.out, predictions)
        print(f'{args.out}: {num_read} images predicted, {len(unreadable)} unreadable')
    else:
        for prediction in predictions:
            if not prediction.error:
                classes = '; '.join(f'{c.name} {c.score:.4f}' for c in prediction.classes)
                print(make_printable(f'{prediction.image}: {classes}'))
    if args.show_dir is not None and num_read > len(unwritten):
        print(f'{args.show_dir}: {num_read - len(unwritten)} annotated pictures')
    for target, reason in unwritten.items():
        print(make_printable(f'warning: {target} could not be written: {reason}'), file=sys.stderr)
    if unreadable:
        print(f'warning: {len(unreadable)} of {len(predictions)} images could not be read:', file=sys.stderr)
        for prediction in unreadable:
            print(make_printable(f'  {prediction.image}: {prediction.error}'), file=sys.stderr)
    if not num_read:
        raise ValueError(f'none of the {len(predictions)} images could be read')
    if unwritten:
        raise ValueError(f'{len(unwritten)} annotated pictures could not be written')

"""Predict images with a checkpoint or an exported file: the best classes of each.

One line an image on stdout, or a JSON or CSV file. Unreadable images are listed at the end and don't stop the run;
exit status 1 if none could be read.

example: python tools/predict.py configs/repvgg/repvgg-a0_8xb32.py repvgg-a0.onnx photos/ --out predictions.json
         python tools/predict.py configs/repvgg/repvgg-a0_8xb32.py epoch_120.pth cat.jpg dog.jpg --show-dir annotated
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrepvgg import cli


def parse() -> argparse.ArgumentParser:
    parser = cli.make_parser(__doc__)
    parser.add_argument('config', help='config of the model, whose test pipeline reads the images')
    parser.add_argument('weights', help='checkpoint in either form, or file of tools/export.py')
    parser.add_argument('images', nargs='+', help='images, and folders of images (with their subfolders)')
    parser.add_argument('--topk', type=cli.positive_int, default=5, metavar='K', help='classes to give (default: 5)')
    parser.add_argument('--batch-size', type=cli.positive_int, default=16, metavar='N', help='default: 16')
    parser.add_argument('--out', type=out_file, help='write the predictions to this .json or .csv file')
    parser.add_argument('--show-dir', metavar='DIR', help='write annotated copies of the images to this folder')
    cli.add_config_options(parser)
    return parser


def out_file(name: str) -> Path:
    path = Path(name)
    if path.suffix not in ('.json', '.csv'):
        raise argparse.ArgumentTypeError(f'must end in .json or .csv, got {name!r}')
    return path


def main(args: argparse.Namespace) -> None:
    cli.require_file(args.weights)
    cli.require_writable(args.out)
    for image in args.images:
        if not Path(image).exists():
            raise FileNotFoundError(f'{image} does not exist')
    cfg = cli.load_config(args.config, args.cfg_options)

    from mmrepvgg.data.images import list_images
    from mmrepvgg.prediction.predictor import Predictor

    images = list_images(args.images, args.show_dir)
    writer = None
    if args.show_dir is not None:
        from mmrepvgg.prediction.pictures import PictureWriter

        writer = PictureWriter(args.show_dir, images)
    predictor = Predictor(cfg, args.weights, args.topk, args.batch_size)
    predictions = predictor.predict([image for image, _ in images], writer.write if writer else None)
    report(args, predictions, writer.failures if writer else {})


def report(args: argparse.Namespace, predictions: Sequence[Any], unwritten: dict[Path, str]) -> None:
    unreadable = [prediction for prediction in predictions if prediction.error]
    num_read = len(predictions) - len(unreadable)
    if args.out is not None:
        from mmrepvgg.prediction.files import write_predictions

        write_predictions(args.out, predictions)
        print(f'{args.out}: {num_read} images predicted, {len(unreadable)} unreadable')
    else:
        for prediction in predictions:
            if not prediction.error:
                print(f'{prediction.image}: ' + '; '.join(f'{c.name} {c.score:.4f}' for c in prediction.classes))
    if args.show_dir is not None and num_read > len(unwritten):
        print(f'{args.show_dir}: {num_read - len(unwritten)} annotated pictures')
    for target, reason in unwritten.items():
        print(f'warning: {target} could not be written: {reason}', file=sys.stderr)
    if unreadable:
        print(f'warning: {len(unreadable)} of {len(predictions)} images could not be read:', file=sys.stderr)
        for prediction in unreadable:
            print(f'  {prediction.image}: {prediction.error}', file=sys.stderr)
    if not num_read:
        raise ValueError(f'none of the {len(predictions)} images could be read')
    if unwritten:
        raise ValueError(f'{len(unwritten)} annotated pictures could not be written')


if __name__ == '__main__':
    cli.run(parse(), main)

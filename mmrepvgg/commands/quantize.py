"""Quantize a checkpoint to int8.

Training images of the config give the ranges of the activations, and its test images the accuracy of the file.

example: mmrepvgg quantize repvgg-a0_8xb32 epoch_120.pth repvgg-a0_int8.onnx
         mmrepvgg quantize repvgg-a0_8xb32 epoch_120.pth repvgg-a0_int8.xml --max-drop 0.5 --eval-samples 5000
         mmrepvgg quantize --model timm:mobileone_s0 --checkpoint weights.pth --data photos mobileone_int8.onnx
"""

import argparse
from dataclasses import fields, replace
from typing import Any

from ..models.fake_quant_settings import GRANULARITIES
from ..progress import starting, working
from ..quantization.plan import make_plan
from ..quantization.settings import QuantizationSettings
from ..runtimes.table import FORMATS, find_format, list_calibrations, list_quantizers
from .arguments import positive_int
from .config_options import add_data, add_model, get_config, require_model_usage
from .errors import checking_usage
from .file_options import add_file_options, add_out, get_file_options
from .files import require_file

# what to lower where there is not enough memory
MEMORY = '`num_samples` or `eval_samples`'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(
        parser,
        'config of the model, train or deploy',
        'its weights in either form; the train form is switched first',
    )
    add_data(
        parser,
        'images to calibrate on. If they are in a class folder for each class of the model, the accuracy is measured '
        'on them, too; if there are folders train and val, on those in val',
    )
    add_out(parser, (row for row in FORMATS if row.quantizers))
    parser.add_argument(
        '--granularity',
        choices=GRANULARITIES,
        help='one scale for each output channel of a weight (default), or one for the whole weight; '
        'quantization-aware training decides it for its models',
    )
    parser.add_argument(
        '--calibration',
        choices=list_calibrations(),
        default='minmax',
        help='how the ranges of the activations are found (default: minmax); dynamic: by the runtime for each image, '
        f'without training images. {_list_calibrations()}',
    )
    parser.add_argument(
        '--quantizer',
        choices=list_quantizers(),
        help=f'quantizer that makes the file, if its format has several (default: the first one). {_list_quantizers()}',
    )
    parser.add_argument(
        '--equalize',
        action=argparse.BooleanOptionalAction,
        help='first rescale the channels, exactly, so that one scale a weight is enough (default with per-tensor)',
    )
    parser.add_argument(
        '--adaptive-rounding',
        action=argparse.BooleanOptionalAction,
        help='round weights so that their errors make up for each other (default with every quantizer but nncf, if the '
        'ranges are calibrated)',
    )
    parser.add_argument(
        '--num-samples', type=positive_int, default=300, help='training images to calibrate on (default: 300)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of their draw (default: 0)')
    parser.add_argument(
        '--max-drop',
        type=float,
        metavar='POINTS',
        help='keep the worst layers in float32, until top-1 accuracy is at most POINTS below float32; half of the test '
        'images choose the layers, the other half is reported',
    )
    parser.add_argument(
        '--eval-samples', type=int, help='test images to measure the accuracy on (default: all; 0: none)'
    )
    add_file_options(parser)


def _list_quantizers() -> str:
    """The quantizers of each format, the default first."""
    rows = [row for row in FORMATS if row.quantizers]
    return '; '.join(f'{row.suffixes[0]}: {", ".join(each.name for each in row.quantizers)}' for row in rows)


def _list_calibrations() -> str:
    """The calibrations of each quantizer."""
    quantizers = {each.name: each for row in FORMATS for each in row.quantizers}
    return '; '.join(f'{name}: {", ".join(each.calibrations)}' for name, each in quantizers.items())


def run(args: argparse.Namespace) -> None:
    require_model_usage(args, data=True)
    options = get_file_options(args)
    with checking_usage():
        settings = QuantizationSettings(
            **{field.name: getattr(args, field.name) for field in fields(QuantizationSettings)}
        )
        plan = make_plan(find_format(args.out), settings)
    plan.row.require_writable(args.out)
    require_file(args.checkpoint)
    plan.quantizer.require_packages(plan.row)
    cfg = get_config(args)

    from ..data.layout import check_data, has_class_folders

    has_test = settings.eval_samples != 0
    if args.by_model and not has_class_folders(cfg):
        settings, has_test = replace(settings, eval_samples=0), False
    # a model of quantization-aware training has ranges, and needs no training images
    needs_train = plan.needs_images and not cfg.get('model', {}).get('backbone', {}).get('quantization')
    needed = dict(train_dataloader=needs_train or not has_test, test_dataloader=has_test)
    check_data(cfg, [name for name, is_needed in needed.items() if is_needed])

    with starting():
        from ..quantization.quantize import quantize_model

    with working(f'quantizing {args.out.name}'):
        result = quantize_model(cfg, args.checkpoint, args.out, settings, **options)
    print_result(args, result)
    folders = {cfg[name].dataset.get('data_root') for name in ('train_dataloader', 'test_dataloader')}
    if args.by_model and result.num_calibration and has_test and len(folders) == 1:
        print('note: calibrated and tested on the same images')


def _name_split(args: argparse.Namespace, split: str) -> str:
    """The images of a split. A model by name was trained elsewhere."""
    return 'calibration' if args.by_model and split != 'test' else split


def print_result(args: argparse.Namespace, result: Any) -> None:
    is_trained = result.reference == 'training'
    if result.was_switched:
        print(f'{args.checkpoint}: train form, switched to deploy form')
    if result.num_equalized:
        print(f'rescaled {result.num_equalized:,} channels, which leaves the float32 function as it is')
    num_layers = len(result.int8_layers) + len(result.float_layers)
    if is_trained:
        origin = 'ranges of its quantization-aware training'
    elif result.num_calibration:
        origin = f'calibrated by {args.calibration} on {result.num_calibration} {_name_split(args, "training")} images'
    else:
        origin = 'ranges of each image, which the runtime finds'
    how = f'{result.granularity}, {"rounded adaptively, " if result.was_rounded else ""}{origin}'
    print(
        f'{args.out}: int8 {how}; {len(result.int8_layers)} of {num_layers} layers in int8; '
        f'{result.size / 1e6:.2f} MB, {result.size_ratio:.2f} times smaller than float32'
    )
    if result.float_layers:
        print(f'in float32: {", ".join(result.float_layers)}')
    if result.accuracy is not None:
        before = (
            '' if result.accuracy_all_int8 is None else f'{result.accuracy_all_int8:.2f}% with all layers in int8, '
        )
        reference = 'as training simulated it' if is_trained else 'in float32'
        print(
            f'top-1 accuracy on {result.num_images} test images: {result.accuracy_reference:.2f}% {reference}, {before}'
            f'{result.accuracy:.2f}% in this file ({result.accuracy - result.accuracy_reference:+.2f} points)'
        )
    if result.num_choosing:
        print(f'layers chosen on {result.num_choosing} other test images')
        if result.accuracy < result.accuracy_reference - args.max_drop:
            print(
                f'note: on the images of this report more than {args.max_drop:g} points are lost; more test images '
                'make the choice surer'
            )
    print(
        f'same label as {"training" if is_trained else "float32"}: {result.agreement:.2f}% of {result.num_images} '
        f'{_name_split(args, result.images)} images'
    )

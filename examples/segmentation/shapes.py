"""Write generated images of discs, squares and triangles, with masks and boxes, to try other tasks without a download.

example: python tools/prepare_shapes.py data/shapes
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmrepvgg.commands.arguments import positive_int

CLASSES = ('background', 'disc', 'square', 'triangle')
IMAGE_SIZE = 64


def prepare_shapes(root: str | Path, num_train: int = 200, num_val: int = 40, seed: int = 0) -> None:
    """Write ``root/{images,masks}/{train,val}/<index>.{jpg,png}`` and ``root/boxes/{train,val}.json``; all or nothing.

    A mask holds each pixel's index in :data:`CLASSES`. The boxes are in COCO's format, without the background. The same
    arguments give the same files. A ``root`` that is complete is left as it is.

    Raises:
        FileExistsError: If ``root`` exists and is something else.
    """
    root, splits = Path(root), dict(train=num_train, val=num_val)
    if root.exists():
        counts = {split: len(list((root / 'masks' / split).glob('*.png'))) for split in splits}
        if counts != splits or not all((root / f'boxes/{split}.json').is_file() for split in splits):
            raise FileExistsError(
                f'{root} exists and is not the shapes data ({counts} masks instead of {splits}, or no boxes); move it '
                'away or name another folder'
            )
        return
    generator = np.random.default_rng(seed)
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = root.with_name(f'.{root.name}.{os.getpid()}')
    try:
        for split, count in splits.items():
            boxes = []
            for index in range(count):
                image, mask = draw_shapes(generator)
                _write(temporary / 'images' / split / f'{index:04d}.jpg', image)
                _write(temporary / 'masks' / split / f'{index:04d}.png', mask)
                boxes.append(find_boxes(mask))
            (temporary / 'boxes').mkdir(exist_ok=True)
            (temporary / f'boxes/{split}.json').write_text(json.dumps(describe_boxes(boxes)))
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def draw_shapes(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image ``(64, 64, 3)`` and its mask ``(64, 64)``, both uint8: up to three shapes on a noisy background.

    Colours are random, so that only the outline tells the class.
    """
    image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), generator.integers(0, 256, 3), np.uint8)
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for label in generator.permutation(np.arange(1, len(CLASSES)))[: generator.integers(1, len(CLASSES))]:
        outline = _make_outline(CLASSES[label], generator.integers(16, IMAGE_SIZE - 16, 2), generator.integers(12, 22))
        cv2.fillPoly(image, [outline], generator.integers(0, 256, 3).tolist())
        cv2.fillPoly(mask, [outline], int(label))
    noisy = image + generator.normal(0, 8, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


def find_boxes(mask: np.ndarray) -> dict[int, Sequence[int]]:
    """Left, top, width and height of what is visible of each shape, by its index in :data:`CLASSES`."""
    return {label: cv2.boundingRect((mask == label).astype(np.uint8)) for label in np.unique(mask).tolist() if label}


def describe_boxes(boxes: list[dict[int, Sequence[int]]]) -> dict[str, Any]:
    """The boxes of all images in COCO's format. The images have the names of their indices."""
    annotations = [
        dict(image_id=index, category_id=label, bbox=box, area=box[2] * box[3], iscrowd=0)
        for index, image in enumerate(boxes)
        for label, box in image.items()
    ]
    return dict(
        images=[
            dict(id=index, file_name=f'{index:04d}.jpg', width=IMAGE_SIZE, height=IMAGE_SIZE)
            for index in range(len(boxes))
        ],
        annotations=[dict(id=number, **annotation) for number, annotation in enumerate(annotations, 1)],
        categories=[dict(id=label, name=CLASSES[label]) for label in range(1, len(CLASSES))],
    )


def _make_outline(name: str, centre: np.ndarray, radius: np.integer) -> np.ndarray:
    corners = dict(disc=32, square=4, triangle=3)[name]
    angles = 2 * np.pi * (np.arange(corners) + 0.5) / corners + np.pi / 2
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.round(points).astype(np.int32)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('root', nargs='?', default='data/shapes', help='folder to write (default: data/shapes)')
    parser.add_argument('--num-train', type=positive_int, default=200, help='training images (default: 200)')
    parser.add_argument('--num-val', type=positive_int, default=40, help='validation images (default: 40)')


def run(args: argparse.Namespace) -> None:
    prepare_shapes(args.root, args.num_train, args.num_val)
    print(f'{args.root}: {args.num_train} training and {args.num_val} validation images')

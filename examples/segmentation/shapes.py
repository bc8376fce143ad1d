"""Write generated images of discs, squares and triangles with their masks, to try segmentation without a download.

example: python tools/prepare_shapes.py data/shapes
"""

import argparse
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from mmrepvgg.commands.arguments import positive_int

CLASSES = ('background', 'disc', 'square', 'triangle')
IMAGE_SIZE = 64


def prepare_shapes(root: str | Path, num_train: int = 200, num_val: int = 40, seed: int = 0) -> None:
    """Write ``root/{images,masks}/{train,val}/<index>.{jpg,png}``; whole or not at all.

    A mask holds each pixel's index in :data:`CLASSES`. The same arguments give the same files. A ``root`` that is
    complete is left as it is.

    Raises:
        FileExistsError: If ``root`` exists and is something else.
    """
    root, splits = Path(root), dict(train=num_train, val=num_val)
    if root.exists():
        counts = {split: len(list((root / 'masks' / split).glob('*.png'))) for split in splits}
        if counts != splits:
            raise FileExistsError(
                f'{root} exists and is not the shapes data ({counts} masks instead of {splits}); move it away or name '
                'another folder'
            )
        return
    generator = np.random.default_rng(seed)
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = root.with_name(f'.{root.name}.{os.getpid()}')
    try:
        for split, count in splits.items():
            for index in range(count):
                image, mask = draw_shapes(generator)
                _write(temporary / 'images' / split / f'{index:04d}.jpg', image)
                _write(temporary / 'masks' / split / f'{index:04d}.png', mask)
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

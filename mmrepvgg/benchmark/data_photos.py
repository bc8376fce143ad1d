"""The images of a benchmark of the data: the config's own, or generated ones of ImageNet's size."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.layout import DataError, check_data
from ..data.wrappers import get_dataset, iterate_datasets

# The most frequent size in ImageNet, and a quality that gives about as many bytes a pixel.
WIDTH, HEIGHT, QUALITY = 500, 375, 92
_NUM_CLASSES = 4


def find_dataset(cfg: Any, folder: Path) -> tuple[Mapping[str, Any], str]:
    """The settings of the data set that a config trains on, and what it is in words.

    Args:
        cfg: The config.
        folder: Folder for generated images, which are taken if the config's own are not there.

    Raises:
        ValueError: If the config has no training data.
    """
    dataset = get_dataset(cfg, 'train')
    try:
        check_data(cfg, ['train_dataloader'])
    except DataError as error:
        write_photos(folder)
        pipeline = next(iterate_datasets(dataset))['pipeline']
        generated = dict(type='mmpretrain.CustomDataset', data_root=str(folder), pipeline=pipeline)
        reason = f"the config's own are not there: {str(error).partition(';')[0]}"
        return generated, f'generated JPEGs of {WIDTH} x {HEIGHT} pixels, quality {QUALITY} ({reason})'
    return dataset, "the config's own training images"


def write_photos(folder: Path, images_a_class: int = 16) -> None:
    """Write pieces of scikit-learn's two photographs, ``folder/<class>/<number>.jpg``, the same ones each time."""
    try:
        from sklearn.datasets import load_sample_images
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'photographs to generate images from come with scikit-learn: pip install "mmrepvgg[digits]"'
        ) from error
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    generator = np.random.default_rng(0)
    for label in range(_NUM_CLASSES):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        for number in range(images_a_class):
            photo = photos[number % len(photos)]
            height = int(generator.uniform(0.6, 1) * photo.height)
            width = height * WIDTH // HEIGHT
            left, top = (int(generator.integers(space + 1)) for space in (photo.width - width, photo.height - height))
            piece = photo.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, (left, top, left + width, top + height))
            piece.save(folder / str(label) / f'{number}.jpg', quality=QUALITY)

"""scikit-learn's bundled digits (1797 real 8x8 scans, UCI Optical Recognition) as an ImageNet-style folder."""

import shutil
from pathlib import Path

import cv2
import numpy as np

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as error:
    raise ModuleNotFoundError('the digits come with scikit-learn: pip install "mmrepvgg[digits]"') from error

from ..checkpoints.leftovers import clear_leftovers, name_temporary

NUM_IMAGES = 1797
_VAL_FRACTION = 0.2


def prepare_digits(root: str | Path) -> tuple[int, int]:
    """Write ``root/{train,val}/<digit>/<index>.png``, 80% and 20% of the images of each digit.

    ``root`` appears when it is complete. A complete ``root`` is not written again.

    Args:
        root: Folder to write.

    Returns:
        tuple[int, int]: Numbers of training and of validation images.

    Raises:
        FileExistsError: If ``root`` exists and does not hold all digits.
    """
    root = Path(root)
    if root.exists():
        counts = tuple(len(list((root / split).glob('[0-9]/*.png'))) for split in ('train', 'val'))
        if sum(counts) != NUM_IMAGES:
            raise FileExistsError(
                f'{root} exists and is not the digits data ({sum(counts)} of {NUM_IMAGES} images); move it away or '
                'name another folder'
            )
        return counts[0], counts[1]

    digits = load_digits()
    indices = np.arange(len(digits.target))
    splits = train_test_split(indices, test_size=_VAL_FRACTION, random_state=0, stratify=digits.target)
    root.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(root.parent)
    temporary = name_temporary(root)
    try:
        for split, members in zip(('train', 'val'), splits, strict=True):
            for index in members:
                folder = temporary / split / str(digits.target[index])
                folder.mkdir(parents=True, exist_ok=True)
                # 17 grey levels (0..16) -> 0..255
                image = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
                if not cv2.imwrite(str(folder / f'{index:04d}.png'), image):
                    raise OSError(f'could not write {folder}/{index:04d}.png')
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(splits[0]), len(splits[1])

"""mmcv's change of the hue, which fails on NumPy 2."""

from typing import Any

import mmcv
import numpy as np


def mend_hue() -> None:
    """Replace ``mmcv.adjust_hue``, which ``ColorJitter(hue=...)`` calls, where it does not work.

    mmcv adds ``np.uint8(hue_factor * 255)`` to the hue, and counts on the overflow of negative numbers. NumPy 2 refuses
    them, and such a training ends at its first image. The mended function gives what mmcv gave on NumPy 1.
    """
    try:
        mmcv.adjust_hue(np.zeros((1, 1, 3), np.uint8), -0.5)
    except OverflowError:
        plain = mmcv.adjust_hue

        def adjust_hue(img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
            return plain(img, _HueFactor(hue_factor), backend)

        mmcv.adjust_hue = adjust_hue


class _HueFactor(float):
    """A number whose product with another one is whole, and from 0 to 255: the same shift on the circle of hues."""

    def __mul__(self, other: Any) -> int:
        return int(float(self) * other) % 256

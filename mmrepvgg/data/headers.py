"""What the header of an image says, without decoding the pixels: its size, and whether it has transparency."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

# Pillow's own limit. Decoding an image of so many pixels takes 0.5 GB by OpenCV, and 2.2 GB by Pillow.
MAX_PIXELS = 178_956_970
_USUAL_FORMATS = ('JPEG', 'PNG')


def open_header(content: bytes) -> Image.Image:
    """Open an image with Pillow, which reads the header only.

    Raises:
        UnidentifiedImageError: If no format fits.
    """
    with ignoring_pillows_limit():
        try:
            return Image.open(io.BytesIO(content), formats=_USUAL_FORMATS)
        except UnidentifiedImageError:
            return Image.open(io.BytesIO(content))


@contextmanager
def ignoring_pillows_limit() -> Iterator[None]:
    """Without Pillow's limit of pixels, at half of which it warns: the caller has a limit of its own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_range(image: Image.Image) -> None:
    """Refuse pixels that are not in 0 to 255, of images with more than 8 bits: nobody says what is white in them.

    Raises:
        ValueError: If the pixels are not, or if all of an image with fractions are at most 1.
    """
    if image.mode.startswith(('F', 'I')):
        low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]  # one band
        if low < 0 or high > 255 or (image.mode == 'F' and high <= 1):
            raise ValueError(f'its values go from {low:g} to {high:g}, and must go from 0 to 255; save it with 8 bits')

"""Images of all kinds, and what is in their place: whole ones that every command reads, and others that none can."""

import functools
import io
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_PIXELS = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (40, 30), interpolation=cv2.INTER_CUBIC
)
PHOTO = Image.fromarray(_PIXELS)


def _save(image: Image.Image, name: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _make_whole() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = PHOTO.convert('RGBA')
    clear.putalpha(Image.fromarray(np.repeat(np.uint8([[255], [0]]), 15, 0).repeat(40, 1)))
    palette = PHOTO.quantize(32)
    deep = _PIXELS.astype(np.uint16) * 257
    moving = dict(save_all=True, append_images=[PHOTO.rotate(180)])
    return {
        'colour.jpg': _save(PHOTO, 'JPEG'),
        'progressive.jpe': _save(PHOTO, 'JPEG', progressive=True),
        'cmyk.jpeg': _save(PHOTO.convert('CMYK'), 'JPEG'),
        'turned.jfif': _save(PHOTO, 'JPEG', exif=turned),
        'suffix.png': _save(PHOTO, 'JPEG'),
        'grey.png': _save(PHOTO.convert('L'), 'PNG'),
        'black_and_white.png': _save(PHOTO.convert('1'), 'PNG'),
        'alpha.png': _save(clear, 'PNG'),
        'grey_alpha.png': _save(clear.convert('LA'), 'PNG'),
        'palette.png': _save(palette, 'PNG'),
        'palette_alpha.png': _save(palette, 'PNG', transparency=0),
        'deep.png': cv2.imencode('.png', deep)[1].tobytes(),
        'deep_grey.png': cv2.imencode('.png', deep[:, :, 0])[1].tobytes(),
        'pixel.png': _save(PHOTO.crop((0, 0, 1, 1)), 'PNG'),
        'moving.png': _save(PHOTO, 'PNG', **moving),
        'moving.gif': _save(PHOTO, 'GIF', **moving),
        'moving.webp': _save(PHOTO, 'WEBP', **moving),
        'alpha.webp': _save(clear, 'WEBP', lossless=True),
        'two_pages.tiff': _save(PHOTO, 'TIFF', **moving),
        'cmyk.tif': _save(PHOTO.convert('CMYK'), 'TIFF'),
        'colour.avif': _save(PHOTO, 'AVIF'),
        'colour.jp2': _save(PHOTO, 'JPEG2000'),
        'colour.bmp': _save(PHOTO, 'BMP'),
        'colour.ppm': _save(PHOTO, 'PPM'),
        'grey.pgm': _save(PHOTO.convert('L'), 'PPM'),
        'colour.tga': _save(PHOTO, 'TGA'),
        'two\nlines.png': _save(PHOTO, 'PNG'),
    }


# Names and contents.
WHOLE = _make_whole()


@functools.cache
def _make_bomb(name: str, **options) -> bytes:
    return _save(Image.new('1', (20_000, 20_000)), name, **options)


def _write_png_bomb(path: Path) -> None:
    path.write_bytes(_make_bomb('PNG'))  # of 48 kB


def _write_tiff_bomb(path: Path) -> None:
    path.write_bytes(_make_bomb('TIFF', compression='group4'))  # of 12 kB


def _write_gif_bomb(path: Path) -> None:
    content = bytearray(WHOLE['moving.gif'])
    content[6:10] = struct.pack('<HH', 20_000, 20_000)
    path.write_bytes(content)


def _write_webp_bomb(path: Path) -> None:
    content = bytearray(WHOLE['moving.webp'])
    content[24:30] = bytes([0xFE, 0x3F, 0x00]) * 2  # 16,383 x 16,383, the most that WebP can have
    path.write_bytes(content)


# Functions that put something unreadable at a path.
BROKEN: dict[str, Callable[[Path], object]] = {
    'empty file': lambda path: path.touch(),
    'text': lambda path: path.write_text('<html>not found</html>'),
    'half a JPEG': lambda path: path.write_bytes(WHOLE['colour.jpg'][:400]),
    'half a PNG': lambda path: path.write_bytes(WHOLE['alpha.png'][:300]),
    'link to nothing': lambda path: path.symlink_to('nothing'),
    'link to itself': lambda path: path.symlink_to(path.name),
    'folder': lambda path: path.mkdir(),
    'bomb of PNG': _write_png_bomb,
    'bomb of TIFF': _write_tiff_bomb,
    'bomb of GIF': _write_gif_bomb,
    'bomb of WebP': _write_webp_bomb,
}

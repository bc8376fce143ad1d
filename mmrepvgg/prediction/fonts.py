"""Fonts in which the names of classes can be drawn."""

import functools

from matplotlib import font_manager

# comes with matplotlib; mmpretrain's visualizer takes it
_USUAL = 'DejaVu Sans Mono'


@functools.lru_cache(maxsize=1024)
def find_fonts(text: str) -> tuple[tuple[str, ...], str]:
    """Find installed fonts that have the characters of a text.

    Returns:
        tuple[tuple[str, ...], str]: Names of fonts, the usual one first, and the characters that no font has.
    """
    families = [_USUAL]
    missing = {char for char in text if not char.isspace()} - _list_characters(font_manager.findfont(_USUAL))
    for font in font_manager.fontManager.ttflist if missing else ():
        # a font of boxes for all characters
        if 'Last Resort' not in font.name and (found := missing & _list_characters(font.fname)):
            families.append(font.name)
            missing -= found
    return tuple(families), ''.join(sorted(missing))


@functools.lru_cache(maxsize=1024)
def _list_characters(path: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))

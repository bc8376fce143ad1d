"""Which layers must stay in float32 so that an int8 model keeps its accuracy."""

import functools
from collections.abc import Callable, Sequence


def find_float_layers(ranked: Sequence[str], is_enough: Callable[[frozenset[str]], bool]) -> tuple[str, ...] | None:
    """Find a small set of layers which must be kept in float32.

    The most sensitive layers are kept first, twice as many each time, until that is enough; then the number is
    bisected. Of what is left as much as can be is put back to int8, halves first, then quarters, down to single layers:
    a ranking of layers one by one says little about them together.

    Args:
        ranked: All layers, the most sensitive one first. That none is kept was not enough.
        is_enough: Whether a set of layers in float32 is enough.

    Returns:
        tuple[str, ...] | None: The layers in the order of ``ranked``; None if not even one layer can be int8.
    """
    is_enough = functools.cache(is_enough)
    most = len(ranked) - 1
    too_few, enough = 0, min(1, most)
    while not enough or not is_enough(frozenset(ranked[:enough])):
        if enough == most:
            return None
        too_few, enough = enough, min(2 * enough, most)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if is_enough(frozenset(ranked[:middle])):
            enough = middle
        else:
            too_few = middle
    return _put_back(ranked[:enough], is_enough)


def _put_back(kept: Sequence[str], is_enough: Callable[[frozenset[str]], bool]) -> tuple[str, ...]:
    kept = tuple(kept)
    size = len(kept) // 2
    while size:
        start = 0
        while start < len(kept):
            rest = kept[:start] + kept[start + size :]
            if rest and is_enough(frozenset(rest)):
                kept = rest
            else:
                start += size
        size //= 2
    return kept

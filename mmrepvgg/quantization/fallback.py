"""Which layers must stay in float32 so that an int8 model keeps its accuracy."""

from collections.abc import Callable, Sequence

# Up to so many layers are each tried in int8 again.
_MAX_PUT_BACK = 8


def find_float_layers(ranked: Sequence[str], is_enough: Callable[[frozenset[str]], bool]) -> tuple[str, ...] | None:
    """Find a small set of layers which must be kept in float32.

    The most sensitive layers are kept first, twice as many each time, until that is enough; then the number is
    bisected, and of a few that are left each is put back to int8 if it can be.

    Args:
        ranked: All layers, the most sensitive one first. That none is kept was not enough.
        is_enough: Whether a set of layers in float32 is enough.

    Returns:
        tuple[str, ...] | None: The layers in the order of ``ranked``; None if not even one layer can be int8.
    """
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
    kept = list(ranked[:enough])
    if len(kept) <= _MAX_PUT_BACK:
        # not the last one: without it there were too few
        for layer in kept[-2::-1]:
            if is_enough(frozenset(kept) - {layer}):
                kept.remove(layer)
    return tuple(kept)

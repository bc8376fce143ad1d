"""The outputs that a backbone returns: whole stages, or single blocks."""

from collections.abc import Iterable, Sequence
from typing import Any

OutIndex = int | tuple[int, int]


def resolve_out_indices(out_indices: int | Sequence[Any], num_blocks: Sequence[int]) -> tuple[OutIndex, ...]:
    """Turn the argument ``out_indices`` of a backbone into stages from 0 and pairs ``(stage, block)``.

    Raises:
        ValueError: If there is no such stage or block, or one is named twice.
    """
    num_stages = len(num_blocks)
    indices = (out_indices,) if isinstance(out_indices, int) else out_indices
    resolved = [index for index in (_resolve(index, num_blocks) for index in indices) if index is not None]
    if not resolved or len(resolved) != len(indices):
        raise ValueError(
            f'out_indices must be stages from 0 to {num_stages - 1}, or from -{num_stages} to -1, or pairs (stage, '
            f'block) with blocks below {tuple(num_blocks)}, got {out_indices!r}'
        )
    if len(set(resolved)) != len(resolved):
        raise ValueError(f'out_indices must name each stage once, got {out_indices!r}')
    return tuple(resolved)


def find_stages(indices: Iterable[OutIndex]) -> list[int]:
    """The stage of each output, in the order in which the network computes them."""
    # the output of a stage comes after those of its blocks
    depths = sorted((index, float('inf')) if isinstance(index, int) else index for index in indices)
    return [stage for stage, _ in depths]


def _resolve(index: Any, num_blocks: Sequence[int]) -> OutIndex | None:
    """The output that ``index`` names, or None if there is no such output."""
    num_stages = len(num_blocks)
    if isinstance(index, int):
        return index % num_stages if -num_stages <= index < num_stages else None
    if not isinstance(index, tuple | list) or len(index) != 2 or not all(isinstance(i, int) for i in index):
        return None
    stage, block = index
    return (stage, block) if 0 <= stage < num_stages and 0 <= block < num_blocks[stage] else None

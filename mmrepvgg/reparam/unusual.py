"""Channels of a deploy form whose weights are far larger or smaller than those of the others."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from ..models.blocks import RepVGGBlock
from ..models.forms import name_layer

# Largest weight of a channel, as a multiple of that of the median channel: from where on it is named.
_WIDE, _DEAD = 100, 1e-6


@torch.no_grad()
def describe_unusual(model: nn.Module) -> Iterator[str]:
    """Describe what the switch is exact about, and rounding to other numbers is not, in a line for each kind."""
    wide: dict[str, int] = {}
    dead: dict[str, int] = {}
    large: dict[str, int] = {}
    widest = 0.0
    for name, block in model.named_modules():
        if not isinstance(block, RepVGGBlock) or not block.deploy:
            continue
        peaks = block.branch_reparam.weight.abs().amax((1, 2, 3))
        median = peaks[peaks > 0].median() if peaks.any() else peaks.new_tensor(1.0)
        wide[name], dead[name] = int((peaks > _WIDE * median).sum()), int((peaks < _DEAD * median).sum())
        widest = max(widest, (peaks.max() / median).item())
    limit = torch.finfo(torch.float16).max
    for name, parameter in model.named_parameters():
        layer = name_layer(name.rpartition('.')[0])
        large[layer] = large.get(layer, 0) + int((parameter.abs() > limit).sum())
    if any(wide.values()):
        yield (
            f'{_count(wide, "channel")} with weights more than {_WIDE} times those of the median channel, up to '
            f'{widest:.1e} times. A batch norm whose variance is near 0 makes them, of a channel that hardly varies. '
            'float32 is exact; in int8 with one scale a tensor they leave few steps to all others: rescale them with '
            '`equalize=True`, and see by `analyze` what int8 costs'
        )
    if any(dead.values()):
        yield (
            f'{_count(dead, "channel")} with weights of 0, or nearly so: they give a constant, whatever the image. '
            'Nothing is lost by the switch; a smaller arch may learn as much'
        )
    if any(large.values()):
        yield (
            f'{_count(large, "number")} above {limit:.0f}, the largest of fp16: an export with fp16 is refused; take '
            'fp32 or bf16'
        )


def _count(numbers: Mapping[str, int], what: str) -> str:
    found = {name: number for name, number in numbers.items() if number}
    *names, last = [f'{name} ({number})' for name, number in list(found.items())[:4]]
    if len(found) > 4:
        names, last = [*names, last], f'{len(found) - 4} more'
    total = sum(found.values())
    layers = f'{", ".join(names)} and {last}' if names else last
    return f'{layers}: {total} {what}{"" if total == 1 else "s"}'

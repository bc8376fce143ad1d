"""What the switch did to a model, and what it left."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Fused:
    """Layers that became one.

    Attributes:
        name: Name of the one layer; its keys are ``{name}.weight`` and ``{name}.bias``.
        layers: Names of the layers before, and of parameters that the code of a block used itself.
        becomes: The one layer in words.
    """

    name: str
    layers: tuple[str, ...]
    becomes: str


@dataclass(frozen=True)
class SwitchReport:
    """What the switch did to a model, and what it left.

    Attributes:
        fused: Layers that became one.
        branches: Sums of parallel linear branches that are left, each with the reason.
        left: Other linear layers that are left, each with the reason.
        not_followed: Modules with batch norms whose code can't be followed, each with what stopped it. Their parts are
            looked at by themselves.
        num_norms_left: Number of batch norms that are left.
        num_convs: Number of convolutions before and after.
        difference: Largest difference of the outputs on the example inputs, relative to the largest output.
        layer_differences: The same for each module that was called before and after, if asked for.
    """

    fused: tuple[Fused, ...]
    branches: Mapping[str, str]
    left: Mapping[str, str]
    not_followed: Mapping[str, str]
    num_norms_left: int
    num_convs: tuple[int, int]
    difference: float | None = None
    layer_differences: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_branches_left(self) -> int:
        """Number of sums of parallel linear branches that are left."""
        return len(self.branches)

    def describe_branches(self, where: str = ':') -> str:
        """That branches are left, ``where``, with the first one; empty if there are none."""
        for name, reason in self.branches.items():
            return f'{self.num_branches_left} sum(s) of parallel linear branches are left{where} {name}: {reason}'
        return ''

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | dict(num_branches_left=self.num_branches_left)

    def with_blocks(self, fused: tuple[Fused, ...], num_convs: int) -> 'SwitchReport':
        """The report with blocks that were switched before, of a model with so many convolutions then."""
        return replace(self, fused=(*fused, *self.fused), num_convs=(num_convs, self.num_convs[1]))

    def with_differences(self, difference: float, layers: Mapping[str, float]) -> 'SwitchReport':
        """The report with what the comparison of both forms gave."""
        return replace(self, difference=difference, layer_differences=layers)

    def __str__(self) -> str:
        num_layers = sum(len(each.layers) for each in self.fused)
        lines = [
            f'{num_layers} layers became {len(self.fused)}; convolutions: {self.num_convs[0]} -> {self.num_convs[1]}',
            _count(self.num_branches_left, 'parallel linear branch', 'es')
            + (' left, as far as the code could be followed' if self.not_followed else ' left'),
            *_list(self.branches),
            _count(self.num_norms_left, 'batch norm') + ' left',
            *_list(self.left),
        ]
        if self.not_followed:
            lines += ['code that could not be followed (its parts were looked at by themselves):']
            lines += _list(self.not_followed)
        if self.difference is not None:
            lines += [f'largest difference: {self.difference:.1e} of the largest output']
        if self.layer_differences:
            lines += ['by layer:', *_list({name: f'{each:.1e}' for name, each in self.layer_differences.items()})]
        return '\n'.join(lines)


def _count(number: int, what: str, plural: str = 's') -> str:
    return f'{number} {what}{"" if number == 1 else plural}'


def _list(texts: Mapping[str, str]) -> list[str]:
    return [f'    {name}: {text}' for name, text in texts.items()]

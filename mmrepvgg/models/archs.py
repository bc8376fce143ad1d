"""The RepVGG architectures as data (paper, Table 2 and Section 4.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Arch:
    """One architecture.

    Attributes:
        num_blocks: Number of blocks of each stage.
        width_factor: Stage ``i`` (from 0) has ``int(base_channels * 2**i * width_factor[i])`` channels.
        group_layer_map: Groups by the block's number, counted through all stages; the stem is block 0
            and always dense. A block that is not named has one group.
        se_cfg: Arguments of :class:`mmrepvgg.models.squeeze_excite.SELayer`, or None for no SE.
        se_after_act: Whether SE follows the activation (RepVGGplus) instead of preceding it.
        stem_channels: Upper bound of the stem's channels; the first stage's width is the other one.
    """

    num_blocks: tuple[int, ...]
    width_factor: tuple[float, ...]
    group_layer_map: Mapping[int, int] = field(default_factory=dict)
    se_cfg: Mapping[str, Any] | None = None
    se_after_act: bool = False
    stem_channels: int = 64

    def __post_init__(self) -> None:
        if not self.num_blocks or any(not isinstance(n, int) or n < 1 for n in self.num_blocks):
            raise ValueError(f'num_blocks must be positive integers, one a stage, got {self.num_blocks}')
        if len(self.width_factor) != len(self.num_blocks):
            raise ValueError(
                f'width_factor must have one number a stage ({len(self.num_blocks)} as num_blocks), '
                f'got {self.width_factor}'
            )
        num_blocks = sum(self.num_blocks)
        for index, groups in self.group_layer_map.items():
            if not 1 <= index <= num_blocks or groups < 1:
                raise ValueError(
                    f'group_layer_map must map block numbers from 1 to {num_blocks} to positive numbers of '
                    f'groups, got {index}: {groups}'
                )
        if self.se_cfg is not None and not isinstance(self.se_cfg, Mapping):
            raise TypeError(f'se_cfg must be a dict or None, got {self.se_cfg!r}')

    @property
    def num_stages(self) -> int:
        return len(self.num_blocks)


def _every_second(groups: int) -> dict[int, int]:
    # The last stage's only block (27) stays dense (official create_RepVGG_B*g*).
    return dict.fromkeys(range(2, 27, 2), groups)


_A, _B, _D = (2, 4, 14, 1), (4, 6, 16, 1), (8, 14, 24, 1)

ARCHS: dict[str, Arch] = {
    'A0': Arch(_A, (0.75, 0.75, 0.75, 2.5)),
    'A1': Arch(_A, (1, 1, 1, 2.5)),
    'A2': Arch(_A, (1.5, 1.5, 1.5, 2.75)),
    'B0': Arch(_B, (1, 1, 1, 2.5)),
    'B1': Arch(_B, (2, 2, 2, 4)),
    'B1g2': Arch(_B, (2, 2, 2, 4), _every_second(2)),
    'B1g4': Arch(_B, (2, 2, 2, 4), _every_second(4)),
    'B2': Arch(_B, (2.5, 2.5, 2.5, 5)),
    'B2g2': Arch(_B, (2.5, 2.5, 2.5, 5), _every_second(2)),
    'B2g4': Arch(_B, (2.5, 2.5, 2.5, 5), _every_second(4)),
    'B3': Arch(_B, (3, 3, 3, 5)),
    'B3g2': Arch(_B, (3, 3, 3, 5), _every_second(2)),
    'B3g4': Arch(_B, (3, 3, 3, 5), _every_second(4)),
    'D2se': Arch(_D, (2.5, 2.5, 2.5, 5), se_cfg=dict(ratio=16, divisor=1)),
    # RepVGGplus; its training-only heads are AuxiliaryClsHead's
    'L2pse': Arch(_D, (2.5, 2.5, 2.5, 5), se_cfg=dict(ratio=4, divisor=1), se_after_act=True),
}


def get_arch(arch: str | Mapping[str, Any] | Arch) -> Arch:
    """Look up a preset, or read a dict of :class:`Arch`'s fields.

    Raises:
        ValueError: If no preset has this name, or a field is unknown, missing or out of range.
        TypeError: If ``arch`` is neither a name nor a dict.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch must be one of {", ".join(ARCHS)} or a dict, got {arch!r}')
        return ARCHS[arch]
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch must be the name of a preset or a dict, got {type(arch).__name__}')

    known = {f.name for f in fields(Arch)}
    if unknown := sorted(set(arch) - known):
        raise ValueError(f'arch may have the keys {", ".join(sorted(known))}, got also {", ".join(unknown)}')
    if missing := sorted({'num_blocks', 'width_factor'} - set(arch)):
        raise ValueError(f'arch must have num_blocks and width_factor, missing: {", ".join(missing)}')
    values = dict(arch)
    # mmpretrain's dicts say None for "no groups".
    values['group_layer_map'] = dict(values.get('group_layer_map') or {})
    return Arch(**values | {name: tuple(arch[name]) for name in ('num_blocks', 'width_factor')})

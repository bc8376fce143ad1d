"""The RepVGG architectures as data (paper, Table 2 and Section 4.1)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Arch(Mapping[str, Any]):
    """One architecture. It can be read like mmpretrain's dicts, too: ``arch['num_blocks']``.

    Attributes:
        num_blocks: Number of blocks of each stage.
        width_factor: Stage ``i`` (from 0) has ``int(base_channels * 2**i * width_factor[i])`` channels.
        group_layer_map: Number of groups for each block number. The blocks of all stages are counted from 1; a block
            that is not named has one group, and so has the stem.
        se_cfg: Arguments of ``SELayer``, or None for no SE.
        se_after_act: Whether SE follows the activation (RepVGGplus) instead of preceding it.
        stem_channels: Largest number of channels of the stem. It never has more than the first stage.
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
        for number, groups in self.group_layer_map.items():
            if type(number) is not int or type(groups) is not int or not 1 <= number <= num_blocks or groups < 1:
                raise ValueError(
                    f'group_layer_map must map block numbers from 1 to {num_blocks} to positive numbers of '
                    f'groups, got {number!r}: {groups!r}'
                )
        if self.se_cfg is not None and not isinstance(self.se_cfg, Mapping):
            raise TypeError(f'se_cfg must be a dict or None, got {self.se_cfg!r}')

    def __getitem__(self, name: str) -> Any:
        if name not in _FIELDS:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)


_FIELDS = tuple(f.name for f in fields(Arch))


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
    # RepVGGplus; AuxiliaryClsHead has the heads that it needs for training only
    'L2pse': Arch(_D, (2.5, 2.5, 2.5, 5), se_cfg=dict(ratio=4, divisor=1), se_after_act=True),
    # YOLOX-PAI's backbone; a pooling follows it (add_ppf=True)
    'yolox-pai-small': Arch((3, 5, 7, 3), (1, 1, 1, 1), stem_channels=32),
}


def get_arch(arch: str | Mapping[str, Any] | Arch) -> Arch:
    """Look up a preset by its name, or make an :class:`Arch` from a dict of its attributes, also from JSON's.

    Raises:
        ValueError: If no preset has this name, or a field is unknown, missing or out of range.
        TypeError: If ``arch`` is neither a name nor a dict.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch must be one of {", ".join(ARCHS)} or a dict, got {arch!r}')
        return ARCHS[arch]
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch must be the name of a preset or a dict, got {type(arch).__name__}')

    if unknown := sorted(set(arch) - set(_FIELDS)):
        raise ValueError(f'arch may have the keys {", ".join(sorted(_FIELDS))}, got also {", ".join(unknown)}')
    if missing := sorted({'num_blocks', 'width_factor'} - set(arch)):
        raise ValueError(f'arch must have num_blocks and width_factor, missing: {", ".join(missing)}')
    values = {**arch, 'num_blocks': tuple(arch['num_blocks']), 'width_factor': tuple(arch['width_factor'])}
    # mmpretrain's dicts have None where no block has groups, and JSON turns the block numbers into strings
    groups = arch.get('group_layer_map') or {}
    if not isinstance(groups, Mapping):
        raise TypeError(f'group_layer_map must be a dict or None, got {groups!r}')
    values['group_layer_map'] = {
        int(number) if isinstance(number, str) and number.isdecimal() else number: n for number, n in groups.items()
    }
    return Arch(**values)

"""The architecture of a state dict, read off its shapes; a state dict that is not whole is an error."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..models.archs import ARCHS, Arch
from .errors import CheckpointError, list_keys
from .keymaps import BLOCK_MODULES, NUM_AUX_HEADS, OTHER_MODULES

BASE_CHANNELS = 64

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Block:
    """One block; ``squeeze_channels`` is None where it has no SE."""

    name: str
    in_channels: int
    out_channels: int
    groups: int
    has_identity: bool
    squeeze_channels: int | None


@dataclass(frozen=True)
class Structure:
    """What the shapes say about a network.

    Attributes:
        form: ``'train'`` or ``'deploy'``.
        blocks: The stem, and all blocks in order.
        num_blocks: Blocks of each stage.
        num_classes: Outputs of the head; None without a head.
        has_aux_heads: RepVGGplus' training-only heads are there.
        is_qarepvgg: The blocks are QARepVGG's: a batch norm after the sum, none in the 1x1 branch.
    """

    form: str
    blocks: tuple[Block, ...]
    num_blocks: tuple[int, ...]
    num_classes: int | None
    has_aux_heads: bool
    is_qarepvgg: bool

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.blocks[sum(self.num_blocks[: i + 1])].out_channels for i in range(len(self.num_blocks)))

    @property
    def se_ratio(self) -> int | None:
        """Channels over squeezed channels of the last block."""
        last = self.blocks[-1]
        return last.out_channels // last.squeeze_channels if last.squeeze_channels else None

    @property
    def is_l2pse(self) -> bool:
        """RepVGGplus-L2pse, the one network whose SE follows the activation: no key of ours and no shape shows that."""
        return self.num_blocks == (8, 14, 24, 1) and self.se_ratio == 4

    @property
    def arch(self) -> str | dict[str, Any]:
        """The preset's name, or else the dict to give as ``arch``."""
        for name, arch in ARCHS.items():
            if self._is_built_from(arch):
                return name
        groups = {number: block.groups for number, block in enumerate(self.blocks) if block.groups > 1}
        arch_dict: dict[str, Any] = dict(
            num_blocks=self.num_blocks,
            width_factor=tuple(width / (BASE_CHANNELS * 2**i) for i, width in enumerate(self.widths)),
        )
        if groups:
            arch_dict['group_layer_map'] = groups
        if self.se_ratio:
            arch_dict['se_cfg'] = dict(ratio=self.se_ratio, divisor=1)
        if self.is_l2pse:
            arch_dict['se_after_act'] = True
        if self.blocks[0].out_channels != min(Arch.stem_channels, self.widths[0]):
            arch_dict['stem_channels'] = self.blocks[0].out_channels
        return arch_dict

    def _is_built_from(self, arch: Arch) -> bool:
        widths = tuple(int(BASE_CHANNELS * 2**i * factor) for i, factor in enumerate(arch.width_factor))
        return (
            (self.num_blocks, self.widths) == (arch.num_blocks, widths)
            and self.blocks[0].out_channels == min(arch.stem_channels, widths[0])
            and all(block.groups == arch.group_layer_map.get(i, 1) for i, block in enumerate(self.blocks))
            and self.se_ratio == (arch.se_cfg.get('ratio') if arch.se_cfg else None)
        )


def infer_structure(weights: Mapping[str, Tensor]) -> Structure:
    """Read the architecture off a state dict with this project's keys, and check that it is complete.

    Raises:
        CheckpointError: If weights are missing, of an impossible shape, or of both forms at once.
    """
    shapes: Shapes = {key: tuple(value.shape) for key, value in weights.items()}
    form = _find_form(shapes)
    names, num_blocks = _list_blocks(shapes)
    blocks: list[Block] = []
    for name in names:
        blocks.append(_infer_block(name, form, shapes, blocks[-1].out_channels if blocks else None))
    structure = Structure(
        form=form,
        blocks=tuple(blocks),
        num_blocks=num_blocks,
        num_classes=_get_shape(shapes, 'head.fc.weight', 2)[0] if 'head.fc.weight' in shapes else None,
        has_aux_heads=any(key.startswith('head.aux_heads.') for key in shapes),
        is_qarepvgg='backbone.stem.norm.weight' in shapes,
    )
    _compare(shapes, expect_shapes(structure, shapes))
    return structure


def expect_shapes(structure: Structure, found: Shapes) -> Shapes:
    """All keys that a network of this structure has, with their shapes, the batch norms' counters included.

    Args:
        structure: What the network is.
        found: Shapes of what it has; only the pooling's inner channels are taken from it.
    """
    shapes: Shapes = {}
    for block in structure.blocks:
        for module, shape in _list_modules(block, structure.form, structure.is_qarepvgg).items():
            _add_module(shapes, f'{block.name}.{module}', shape, BLOCK_MODULES[module])
    others: Shapes = {}
    width, num_classes = structure.blocks[-1].out_channels, structure.num_classes
    if num_classes is not None:
        others['head.fc'] = (num_classes, width)
    if structure.has_aux_heads:
        # after stage 1, stage 2 and the first half of stage 3
        for i, channels in enumerate(structure.widths[:NUM_AUX_HEADS]):
            others[f'head.aux_heads.{i}.conv'] = (channels, channels, 3, 3)
            others[f'head.aux_heads.{i}.norm'] = (channels,)
            others[f'head.aux_heads.{i}.fc'] = (num_classes or 0, channels)
    if 'backbone.ppf.conv1.conv.weight' in found:
        hidden = _get_shape(found, 'backbone.ppf.conv1.conv.weight', 4)[0]
        # its output is the input and three poolings of it, joined
        others['backbone.ppf.conv1.conv'], others['backbone.ppf.conv1.bn'] = (hidden, width, 1, 1), (hidden,)
        others['backbone.ppf.conv2.conv'], others['backbone.ppf.conv2.bn'] = (width, 4 * hidden, 1, 1), (width,)
    for module, shape in others.items():
        _add_module(shapes, module, shape, OTHER_MODULES[module])
    return shapes


def _find_form(shapes: Shapes) -> str:
    examples = {
        form: next((key for key in shapes if module in key), None)
        for form, module in (('train', '.branch_3x3.'), ('deploy', '.branch_reparam.'))
    }
    forms = [form for form, key in examples.items() if key]
    if len(forms) != 1:
        found = ' and '.join(str(key) for key in examples.values() if key) or 'neither'
        raise CheckpointError(f'the weights must be in train form or in deploy form, got {found}')
    return forms[0]


def _list_blocks(shapes: Shapes) -> tuple[list[str], tuple[int, ...]]:
    """The blocks' names in order, and how many there are in each stage."""
    matches = (re.match(r'backbone\.stage_(\d+)\.(\d+)\.', key) for key in shapes)
    numbers = sorted({(int(match[1]), int(match[2])) for match in matches if match})
    num_blocks: list[int] = []
    for stage, j in numbers:
        if j == 0 and stage == len(num_blocks) + 1:
            num_blocks.append(1)
        elif num_blocks and (stage, j) == (len(num_blocks), num_blocks[-1]):
            num_blocks[-1] += 1
        else:
            raise CheckpointError(f'the weights are incomplete: there is no block before backbone.stage_{stage}.{j}')
    if not num_blocks:
        raise CheckpointError('the weights are incomplete: there is no stage')
    return ['backbone.stem', *(f'backbone.stage_{stage}.{j}' for stage, j in numbers)], tuple(num_blocks)


def _infer_block(name: str, form: str, shapes: Shapes, previous: int | None) -> Block:
    kernel = f'{name}.{"branch_3x3.conv" if form == "train" else "branch_reparam"}.weight'
    out_channels, group_channels, *_ = _get_shape(shapes, kernel, 4)
    in_channels = previous or group_channels  # the stem has no groups
    if not group_channels or in_channels % group_channels:
        raise CheckpointError(f'{kernel} {shapes[kernel]} does not fit the {in_channels} channels of its input')
    squeeze = f'{name}.se_layer.conv1.conv.weight'
    has_se = any('.se_layer.' in key for key in shapes)
    # the first block of a stage has one where its stride is 1
    is_first = name.endswith('.0') or name == 'backbone.stem'
    return Block(
        name,
        in_channels,
        out_channels,
        groups=in_channels // group_channels,
        has_identity=f'{name}.branch_norm.weight' in shapes if is_first else True,
        squeeze_channels=_get_shape(shapes, squeeze, 4)[0] if has_se else None,
    )


def _list_modules(block: Block, form: str, is_qarepvgg: bool) -> Shapes:
    """The block's modules, and the shapes of their weights."""
    channels, group_channels = block.out_channels, block.in_channels // block.groups
    modules: Shapes = {}
    if form == 'deploy':
        modules['branch_reparam'] = (channels, group_channels, 3, 3)
    else:
        modules['branch_3x3.conv'], modules['branch_3x3.norm'] = (channels, group_channels, 3, 3), (channels,)
        modules['branch_1x1.conv'] = (channels, group_channels, 1, 1)
        if is_qarepvgg:
            modules['norm'] = (channels,)
        else:
            modules['branch_1x1.norm'] = (channels,)
            if block.has_identity:
                modules['branch_norm'] = (channels,)
    if block.squeeze_channels is not None:
        modules['se_layer.conv1.conv'] = (block.squeeze_channels, channels, 1, 1)
        modules['se_layer.conv2.conv'] = (channels, block.squeeze_channels, 1, 1)
    return modules


def _add_module(shapes: Shapes, name: str, shape: tuple[int, ...], tensors: tuple[str, ...]) -> None:
    for tensor in tensors:
        if tensor == 'num_batches_tracked':
            shapes[f'{name}.{tensor}'] = ()
        else:
            shapes[f'{name}.{tensor}'] = shape if tensor == 'weight' else shape[:1]


def _compare(found: Shapes, expected: Shapes) -> None:
    # MindSpore and Paddle have no such counters, and torch does without
    missing = [key for key in expected if key not in found and not key.endswith('.num_batches_tracked')]
    if missing:
        raise CheckpointError(f'the weights are incomplete: {len(missing)} are missing: {list_keys(missing)}')
    if extra := [key for key in found if key not in expected]:
        raise CheckpointError(f'there is no such thing in a RepVGG of these shapes: {list_keys(extra)}')
    wrong = [
        f'{key} {found[key]} instead of {shape}' for key, shape in expected.items() if found.get(key, shape) != shape
    ]
    if wrong:
        hint = ''
        if 'head.fc.weight' in found and found['head.fc.weight'] != expected['head.fc.weight']:
            hint = '; PaddleClas keeps the weight of the head transposed: if it is from there, give `system=paddleclas`'
        raise CheckpointError(f'weights are of the wrong shape: {list_keys(wrong)}{hint}')


def _get_shape(shapes: Shapes, key: str, num_dims: int) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(f'the weights are incomplete: {key} is missing')
    if len(shapes[key]) != num_dims:
        raise CheckpointError(f'{key} must have {num_dims} dimensions, got the shape {shapes[key]}')
    return shapes[key]

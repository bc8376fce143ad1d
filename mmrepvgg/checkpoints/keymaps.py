"""Where each system keeps each tensor of a RepVGG: tables, and nothing else.

A key is the name of a place (the stem, block j of stage i, the network itself), then of a module there, then of a
tensor in it. Each is one row: this project's name and the system's. translate.py is what reads them.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """A prefix of keys. ``{}`` stands for a number.

    Attributes:
        ours: This project's prefix.
        theirs: The system's.
        shift: What to add to the system's numbers, one by one, to get ours; empty if they are equal.
        blocks: Numbers of our blocks that are here, where a system has cut a stage in two.
    """

    ours: str
    theirs: str
    shift: tuple[int, ...] = ()
    blocks: range | None = None


@dataclass(frozen=True)
class DropRule:
    """Entries that are no weights.

    Attributes:
        name: What they are.
        keys: Their whole names.
        prefixes: What the others' names begin with.
    """

    name: str
    keys: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()

    def covers(self, key: str) -> bool:
        return key in self.keys or key.startswith(self.prefixes)


TORCH_NORM = {name: name for name in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')}


@dataclass(frozen=True)
class System:
    """A source of checkpoints.

    Attributes:
        title: Its name for people.
        blocks: Where its blocks are.
        block_modules: The modules of a block: our name, its name.
        other_modules: Its modules outside of blocks: our name, its name.
        norm: The tensors of a batch norm: our name, its name. One that has no row does not exist there.
        transposed: Modules (our names) whose weight it keeps transposed.
        file_format: The format that is its own; of two systems with the same keys, that one is meant.
        dropped: What its files hold besides weights.
        se_after_activation: Its squeeze-and-excitation follows the activation, as only RepVGGplus' does.
        note: What a user of the result must know.
    """

    title: str
    blocks: tuple[Place, ...]
    block_modules: dict[str, str]
    other_modules: dict[str, str] = field(default_factory=lambda: {'head.fc': 'linear'})
    norm: dict[str, str] = field(default_factory=lambda: TORCH_NORM)
    transposed: tuple[str, ...] = ()
    file_format: str = 'torch'
    dropped: tuple[DropRule, ...] = ()
    se_after_activation: bool = False
    note: str = ''


# The tensors of our modules: a convolution before a batch norm has no bias.
WEIGHT, AFFINE, NORM = ('weight',), ('weight', 'bias'), tuple(TORCH_NORM)

BLOCK_MODULES = {
    'branch_3x3.conv': WEIGHT,
    'branch_3x3.norm': NORM,
    'branch_1x1.conv': WEIGHT,
    'branch_1x1.norm': NORM,
    'branch_norm': NORM,
    'norm': NORM,
    'branch_reparam': AFFINE,
    'se_layer.conv1.conv': AFFINE,
    'se_layer.conv2.conv': AFFINE,
}
NUM_AUX_HEADS = 3
OTHER_MODULES = {
    'head.fc': AFFINE,
    **{
        f'head.aux_heads.{i}.{module}': tensors
        for i in range(NUM_AUX_HEADS)
        for module, tensors in (('conv', WEIGHT), ('norm', NORM), ('fc', AFFINE))
    },
    'backbone.ppf.conv1.conv': WEIGHT,
    'backbone.ppf.conv1.bn': NORM,
    'backbone.ppf.conv2.conv': WEIGHT,
    'backbone.ppf.conv2.bn': NORM,
}

# ------------------------------------------------------------------------------------------------ the systems

_OFFICIAL_BLOCKS = (Place('backbone.stem', 'stage0'), Place('backbone.stage_{}.{}', 'stage{}.{}'))
_OFFICIAL_MODULES = {
    'branch_3x3.conv': 'rbr_dense.conv',
    'branch_3x3.norm': 'rbr_dense.bn',
    'branch_1x1.conv': 'rbr_1x1.conv',
    'branch_1x1.norm': 'rbr_1x1.bn',
    'branch_norm': 'rbr_identity',
    'branch_reparam': 'rbr_reparam',
    'se_layer.conv1.conv': 'se.down',
    'se_layer.conv2.conv': 'se.up',
}
_OFFICIAL = System('the official RepVGG repository', _OFFICIAL_BLOCKS, _OFFICIAL_MODULES)

# RepVGGplus cuts stage 3 in the middle, where its third auxiliary head sits.
_MIDDLE = 12
_PLUS_AUX = {0: 'stage1_aux', 1: 'stage2_aux', 2: 'stage3_first_aux'}
_REPVGGPLUS = System(
    'RepVGGplus of the official repository',
    (
        Place('backbone.stem', 'stage0'),
        Place('backbone.stage_1.{}', 'stage1.blocks.{}'),
        Place('backbone.stage_2.{}', 'stage2.blocks.{}'),
        Place('backbone.stage_3.{}', 'stage3_first.blocks.{}', blocks=range(_MIDDLE)),
        Place('backbone.stage_3.{}', 'stage3_second.blocks.{}', (_MIDDLE,), range(_MIDDLE, 2 * _MIDDLE)),
        Place('backbone.stage_4.{}', 'stage4.blocks.{}'),
    ),
    _OFFICIAL_MODULES | {'se_layer.conv1.conv': 'post_se.down', 'se_layer.conv2.conv': 'post_se.up'},
    other_modules={
        'head.fc': 'linear',
        **{
            f'head.aux_heads.{i}.{ours}': f'{head}.{theirs}'
            for i, head in _PLUS_AUX.items()
            for ours, theirs in (('conv', '0.conv'), ('norm', '0.bn'), ('fc', '3'))
        },
    },
    se_after_activation=True,
)

_TIMM = System(
    'timm',
    (Place('backbone.stem', 'stem'), Place('backbone.stage_{}.{}', 'stages.{}.{}', (1, 0))),
    {
        'branch_3x3.conv': 'conv_kxk.conv',
        'branch_3x3.norm': 'conv_kxk.bn',
        'branch_1x1.conv': 'conv_1x1.conv',
        'branch_1x1.norm': 'conv_1x1.bn',
        'branch_norm': 'identity',
        'branch_reparam': 'reparam_conv',
        'se_layer.conv1.conv': 'attn.fc1',
        'se_layer.conv2.conv': 'attn.fc2',
    },
    other_modules={'head.fc': 'head.fc'},
)

_OURS = System(
    'mmrepvgg, mmpretrain or mmcls 0.x',
    (
        Place('backbone.stem', 'backbone.stem'),
        Place('backbone.stage_{}.{}', 'backbone.stage_{}.{}'),
        # a backbone that was saved alone
        Place('backbone.stem', 'stem'),
        Place('backbone.stage_{}.{}', 'stage_{}.{}'),
    ),
    {module: module for module in BLOCK_MODULES},
    other_modules={module: module for module in OTHER_MODULES},
)

_MINDSPORE_STATE = DropRule(
    "MindSpore's training state",
    (
        *('epoch_num', 'step_num', 'global_step', 'learning_rate', 'momentum', 'beta1_power', 'beta2_power'),
        *('scale_sense', 'current_iterator_step', 'last_overflow_iterator_step'),
    ),
    ('moments.', 'moment1.', 'moment2.', 'adam_m.', 'adam_v.', 'accum.', 'stat.'),
)
_MINDCV = System(
    'MindCV',
    _OFFICIAL_BLOCKS,
    {
        'branch_3x3.conv': 'rbr_dense.0',
        'branch_3x3.norm': 'rbr_dense.1',
        'branch_1x1.conv': 'rbr_1x1.0',
        'branch_1x1.norm': 'rbr_1x1.1',
        'branch_norm': 'rbr_identity',
        'branch_reparam': 'rbr_reparam',
        'se_layer.conv1.conv': 'se.conv_reduce',
        'se_layer.conv2.conv': 'se.conv_expand',
    },
    norm={'weight': 'gamma', 'bias': 'beta', 'running_mean': 'moving_mean', 'running_var': 'moving_variance'},
    file_format='mindspore',
    dropped=(_MINDSPORE_STATE,),
)
_MINDSPORE = System(
    "MindSpore's model zoo",
    _OFFICIAL_BLOCKS,
    _MINDCV.block_modules | {'se_layer.conv1.conv': 'se.down', 'se_layer.conv2.conv': 'se.up'},
    norm=_MINDCV.norm,
    file_format='mindspore',
    dropped=_MINDCV.dropped,
)

_PADDLECLAS = System(
    'PaddleClas',
    _OFFICIAL_BLOCKS,
    _OFFICIAL_MODULES,
    norm={'weight': 'weight', 'bias': 'bias', 'running_mean': '_mean', 'running_var': '_variance'},
    transposed=('head.fc',),
    file_format='paddle',
    dropped=(DropRule("Paddle's own parameter names", ('StructuredToParameterName@@',)),),
)

_QAREPVGG = System(
    'QARepVGG',
    _OFFICIAL_BLOCKS,
    {
        'branch_3x3.conv': 'rbr_dense.conv',
        'branch_3x3.norm': 'rbr_dense.bn',
        'branch_1x1.conv': 'rbr_1x1',
        'norm': 'bn',
        'branch_reparam': 'rbr_reparam',
    },
    note="train-form QARepVGG weights need a qarepvgg config (block='QARepVGGBlock')",
)

# Of two systems that fit equally well, the first is taken.
SYSTEMS: dict[str, System] = {
    'official': _OFFICIAL,
    'repvggplus': _REPVGGPLUS,
    'timm': _TIMM,
    'mmrepvgg': _OURS,
    'mmpretrain': _OURS,
    'mindcv': _MINDCV,
    'mindspore': _MINDSPORE,
    'paddleclas': _PADDLECLAS,
    'qarepvgg': _QAREPVGG,
}
# Networks of the same family that no arch here computes: what a key of theirs has in it, and what they are.
UNSERVED = {
    r'\bERBlock_\d': "YOLOv6's EfficientRep, a detector's backbone with other widths and blocks",
    r'\bscale_(conv|1x1|identity)\b': "RepOpt-VGG's network for the search of its scales (CSLA)",
    r'^stage\d(\.\d+)?\.conv\.': "RepOpt-VGG's target network, plain blocks that were trained without branches",
}
TARGETS = ('mmrepvgg', 'official', 'timm')

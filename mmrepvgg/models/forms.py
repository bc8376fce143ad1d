"""The forms of a block in a state dict, and the refusal of the wrong one."""

from collections.abc import Mapping
from typing import Any

from torch import nn

TRAIN_BRANCHES = ('branch_3x3', 'branch_1x1', 'branch_norm')
SUM_NORM = 'norm'  # QARepVGG's, behind the sum of the branches
DEPLOY_BRANCH = 'branch_reparam'
DEPLOY_NORM = 'deploy_norm'  # inserted behind the convolution of the deploy form
INPUT_QUANTIZER = 'input_quantizer'  # quantization-aware training's, in train form

# A state dict with keys below one of the first names is refused by a block that has no module of the second one.
_REFUSALS = (
    (
        (DEPLOY_NORM,),
        DEPLOY_NORM,
        'has inserted batch norms (it has {}), but the model has none; fold them with `reparameterize_checkpoint` and '
        'the config that inserts them',
    ),
    (
        TRAIN_BRANCHES,
        'branch_3x3',
        'is in train form (it has {}), but the model is in deploy form; convert the checkpoint with '
        '`reparameterize_checkpoint` and the train config',
    ),
    (
        (DEPLOY_BRANCH,),
        DEPLOY_BRANCH,
        'is in deploy form (it has {}), but the model is in train form; use the deploy config (deploy=True), or load '
        'the train-form checkpoint from which `reparameterize_checkpoint` made it',
    ),
    (
        (SUM_NORM,),
        SUM_NORM,
        'has QARepVGG blocks (it has {}), but the model has RepVGG blocks; use a qarepvgg config '
        "(backbone.block='QARepVGGBlock')",
    ),
    (
        ('branch_1x1.norm',),
        'branch_1x1.norm',
        'has RepVGG blocks (it has {}), but the model has QARepVGG blocks; use a repvgg config '
        "(backbone.block='RepVGGBlock')",
    ),
    (
        (INPUT_QUANTIZER,),
        INPUT_QUANTIZER,
        'is of quantization-aware training (it has {}), but the model has no quantizers; use the config with which it '
        'was trained (backbone.quantization=dict(...)); `quantize_model` makes its int8 file',
    ),
)


class CheckpointFormError(RuntimeError):
    """A state dict of the other form: train-form weights for a deploy-form model, or the other way."""


def check_forms(blocks: Mapping[str, nn.Module], state_dict: Mapping[str, Any]) -> None:
    """Refuse a state dict of another form, of which a non-strict load would take next to nothing.

    A quantizer or an inserted norm that the state dict has nothing of is no error: the quantizer is to observe its
    range yet, and the norm starts as the identity function.

    Args:
        blocks: The blocks that are to load it, by what their keys begin with, the final dot included.
        state_dict: The state dict.

    Raises:
        CheckpointFormError: Names the form found, the form wanted, and what to do.
    """
    for prefix, block in blocks.items():
        modules = {name for name, _ in block.named_modules()}
        for parts, module, message in _REFUSALS:
            starts = tuple(f'{prefix}{part}.' for part in parts)
            found = next((key for key in state_dict if key.startswith(starts)), None)
            if found and module not in modules:
                raise CheckpointFormError(f'the checkpoint {message.format(found)}')

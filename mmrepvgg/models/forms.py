"""The forms of a block in a state dict. A state dict of the wrong form is refused."""

from collections.abc import Mapping
from typing import Any

from torch import nn

TRAIN_BRANCHES = ('branch_3x3', 'branch_1x1', 'branch_norm')
SUM_NORM = 'norm'  # behind the sum of the branches of a QARepVGG block
DEPLOY_BRANCH = 'branch_reparam'
DEPLOY_NORM = 'deploy_norm'  # inserted behind the convolution of the deploy form
INPUT_QUANTIZER = 'input_quantizer'  # of quantization-aware training, in train form


def name_layer(path: str) -> str:
    """The name of a layer by its path: the convolution of a block in deploy form has the name of the block."""
    return path.removesuffix(f'.{DEPLOY_BRANCH}')


# A block without the first module of a row refuses a state dict that has keys of any module of this row.
_REFUSALS = {
    (DEPLOY_NORM,): (
        'has inserted batch norms (it has {}), but the model has none; take the config that inserts them, and fold '
        'them with `reparameterize_checkpoint`'
    ),
    TRAIN_BRANCHES: (
        'is in train form (it has {}), but the model is in deploy form; convert the checkpoint with '
        '`reparameterize_checkpoint`'
    ),
    (DEPLOY_BRANCH,): (
        'is in deploy form (it has {}), but the model is in train form; use the deploy config, or set '
        '`model.backbone.deploy=True`, or load '
        'the train-form checkpoint from which it was made'
    ),
    (SUM_NORM,): (
        'has QARepVGG blocks (it has {}), but the model has RepVGG blocks; use a qarepvgg config '
        "(backbone.block='QARepVGGBlock')"
    ),
    ('branch_1x1.norm',): (
        'has RepVGG blocks (it has {}), but the model has QARepVGG blocks; use a repvgg config '
        "(backbone.block='RepVGGBlock')"
    ),
    (INPUT_QUANTIZER,): (
        'is of quantization-aware training (it has {}), but the model has no quantizers; use the config with which it '
        'was trained (backbone.quantization=dict(...)), or make its int8 file with `quantize_model`'
    ),
}


class CheckpointFormError(RuntimeError):
    """A state dict of another form than the model, for example train-form weights for a deploy-form model."""


def check_forms(blocks: Mapping[str, nn.Module], state_dict: Mapping[str, Any]) -> None:
    """Refuse a state dict of another form. A non-strict load would take almost nothing of it.

    A state dict may lack the keys of a quantizer, which then observes its range, and those of an inserted norm, which
    then starts as the identity function.

    Args:
        blocks: The blocks that load it, by the prefix of their keys, with the final dot.
        state_dict: The state dict.

    Raises:
        CheckpointFormError: If the state dict has another form. The message names both forms.
    """
    for prefix, block in blocks.items():
        modules = {name for name, _ in block.named_modules()}
        for parts, message in _REFUSALS.items():
            starts = tuple(f'{prefix}{part}.' for part in parts)
            found = next((key for key in state_dict if key.startswith(starts)), None)
            if found and parts[0] not in modules:
                raise CheckpointFormError(f'the checkpoint {message.format(found)}')

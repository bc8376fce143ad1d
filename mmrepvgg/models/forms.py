"""The forms of a block in a state dict, and the refusal of the wrong one."""

from collections.abc import Mapping
from typing import Any

TRAIN_BRANCHES = ('branch_3x3', 'branch_1x1', 'branch_norm')
SUM_NORM = 'norm'  # QARepVGG's, behind the sum of the branches
DEPLOY_BRANCH = 'branch_reparam'
DEPLOY_NORM = 'deploy_norm'
INPUT_QUANTIZER = 'input_quantizer'  # quantization-aware training's, in train form

_CONVERT = 'python tools/reparameterize_model.py'


class CheckpointFormError(RuntimeError):
    """A state dict of the other form: train-form weights for a deploy-form model, or the other way."""


def check_form(
    prefix: str, state_dict: Mapping[str, Any], *, deploy: bool, inserted_norm: bool, sum_norm: bool, quantized: bool
) -> None:
    """Refuse a state dict of another form, of which a non-strict load would take next to nothing.

    Args:
        prefix: What the block's keys begin with, the final dot included.
        state_dict: The state dict that is to be loaded.
        deploy: Whether the block is in deploy form.
        inserted_norm: Whether a batch norm is inserted behind its convolution.
        sum_norm: Whether its train form has a batch norm behind the sum of the branches (QARepVGG).
        quantized: Whether it has a quantizer of its input (quantization-aware training). One that the state dict has
            nothing of is no error: it is to observe its range yet.

    Raises:
        CheckpointFormError: If it has a tensor of another form, or of another kind of block in train form.
    """

    def find(*names: str) -> str | None:
        heads = tuple(f'{prefix}{name}.' for name in names)
        return next((key for key in state_dict if key.startswith(heads)), None)

    if not inserted_norm and (found := find(DEPLOY_NORM)):
        raise CheckpointFormError(
            f'the checkpoint has inserted batch norms (it has {found}), but the model has none; fold them with: '
            f'{_CONVERT} INSERT_BN_CONFIG SRC DST'
        )
    if deploy and (found := find(*TRAIN_BRANCHES)):
        raise CheckpointFormError(
            f'the checkpoint is in train form (it has {found}), but the model is in deploy form; convert the '
            f'checkpoint with: {_CONVERT} TRAIN_CONFIG SRC DST'
        )
    if not deploy and (found := find(DEPLOY_BRANCH)):
        raise CheckpointFormError(
            f'the checkpoint is in deploy form (it has {found}), but the model is in train form; use the deploy '
            'config (deploy=True), or load the train-form checkpoint from which it was made with: '
            f'{_CONVERT} TRAIN_CONFIG SRC DST'
        )
    if not deploy and not sum_norm and (found := find(SUM_NORM)):
        raise CheckpointFormError(
            f'the checkpoint has QARepVGG blocks (it has {found}), but the model has RepVGG blocks; use a qarepvgg '
            "config (backbone.block='QARepVGGBlock')"
        )
    if not deploy and sum_norm and (found := find('branch_1x1.norm')):
        raise CheckpointFormError(
            f'the checkpoint has RepVGG blocks (it has {found}), but the model has QARepVGG blocks; use a repvgg '
            "config (backbone.block='RepVGGBlock')"
        )
    if not quantized and (found := find(INPUT_QUANTIZER)):
        raise CheckpointFormError(
            f'the checkpoint is of quantization-aware training (it has {found}), but the model has no quantizers; use '
            'the config with which it was trained (backbone.quantization=dict(...)); its int8 file is made with: '
            'python tools/quantize.py QAT_CONFIG CHECKPOINT OUT'
        )

"""Loading a checkpoint's weights into a model: all of them, or an error that says why not."""

from torch import nn

from ..models.blocks import CheckpointFormError, RepVGGBlock, check_form
from .reading import Checkpoint, CheckpointError


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load strictly. Nothing is loaded if anything does not fit.

    Raises:
        CheckpointFormError: If the checkpoint is in the other form than the model.
        CheckpointError: If keys are missing or left over, or shapes differ.
    """
    blocks = {f'{name}.' if name else '': m for name, m in model.named_modules() if isinstance(m, RepVGGBlock)}
    try:
        check_form(blocks, checkpoint.state_dict)
    except CheckpointFormError as error:
        raise CheckpointFormError(f'{checkpoint.path}: {error}') from None
    expected, found = model.state_dict(), checkpoint.state_dict
    # files of torch < 0.4.1 have no such counters, and torch fills them in
    missing = [key for key in expected if key not in found and not key.endswith('num_batches_tracked')]
    unexpected = [key for key in found if key not in expected]
    reshaped = [
        f'{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}'
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    problems = {'missing': missing, 'unexpected': unexpected, 'of another shape': reshaped}
    if any(problems.values()):
        counts = ', '.join(f'{len(keys)} {kind} ({keys[0]}, ...)' for kind, keys in problems.items() if keys)
        raise CheckpointError(
            f'{checkpoint.path} does not fit the model of the config: {counts}; give the config with which it was '
            'trained (same arch, same number of classes)'
        )
    model.load_state_dict(found)

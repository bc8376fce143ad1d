"""Loading a checkpoint's weights into a model: all of them, or an error that says why not."""

from torch import nn

from ..measures.finite import is_finite
from ..models.blocks import RepVGGBlock
from ..models.forms import INPUT_QUANTIZER, CheckpointFormError, check_forms
from ..models.heads import AuxiliaryClsHead
from .reading import Checkpoint, CheckpointError
from .translate import explain_keys


def load_weights(model: nn.Module, checkpoint: Checkpoint, *, assign: bool = False) -> None:
    """Load strictly, for inference. Nothing is loaded if anything does not fit.

    Training-only heads of which the checkpoint has nothing are dropped from the model: it is whole without them.

    Args:
        model: Model in the form of the checkpoint.
        checkpoint: Weights for all of the model.
        assign: The model takes the checkpoint's tensors themselves, not copies of them, where their type is the
            model's. It is on their device then.

    Raises:
        CheckpointFormError, CheckpointError: From :func:`check_weights`.
    """
    for head in check_weights(model, checkpoint):
        head.switch_to_deploy()
    weights = checkpoint.state_dict
    if assign:
        dtypes = {key: value.dtype for key, value in model.state_dict().items()}
        weights = {key: value.to(dtypes[key]) for key, value in weights.items()}
    model.load_state_dict(weights, assign=assign)


def check_weights(model: nn.Module, checkpoint: Checkpoint) -> list[AuxiliaryClsHead]:
    """Check that a checkpoint has what a model needs, and nothing else.

    Returns:
        list[AuxiliaryClsHead]: The heads with a training-only part of which the checkpoint has nothing.

    Raises:
        CheckpointFormError: If the checkpoint is in the other form than the model.
        CheckpointError: If keys are missing or left over, shapes differ, or a value is not finite or a variance
            negative.
    """
    blocks = {f'{name}.' if name else '': m for name, m in model.named_modules() if isinstance(m, RepVGGBlock)}
    try:
        check_forms(blocks, checkpoint.state_dict)
    except CheckpointFormError as error:
        raise CheckpointFormError(f'{checkpoint.path}: {error}') from None
    absent = _find_absent_heads(model, checkpoint)
    expected, found = model.state_dict(), checkpoint.state_dict
    expected = {key: value for key, value in expected.items() if not key.startswith(tuple(absent))}
    # files of torch < 0.4.1 have no such counters, and torch fills them in
    missing = [key for key in expected if key not in found and not key.endswith('num_batches_tracked')]
    unexpected = [key for key in found if key not in expected]
    reshaped = [
        f'{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}'
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    retyped = [
        f'{key} {found[key].dtype} instead of {expected[key].dtype}'
        for key in expected
        if key in found and found[key].is_floating_point() != expected[key].is_floating_point()
    ]
    problems = {
        'missing': missing,
        'unexpected': unexpected,
        'of another shape': reshaped,
        'of another type': retyped,
    }
    if missing and all(f'.{INPUT_QUANTIZER}.' in f'.{key}' for key in missing):
        raise CheckpointError(
            f'{checkpoint.path} is not of quantization-aware training, and the config is (backbone.quantization); '
            'train it so first (`train`, with `load_from=CHECKPOINT` in the config), or give the config with which it '
            'was trained'
        )
    if any(problems.values()):
        counts = ', '.join(f'{len(keys)} {kind} ({keys[0][:200]}, ...)' for kind, keys in problems.items() if keys)
        remedy = (explain_keys(found) if blocks else '') or (
            '; give the config with which it was trained (same arch, same number of classes)'
        )
        raise CheckpointError(f'{checkpoint.path} does not fit the model of the config: {counts}{remedy}')
    for key, value in found.items():
        # a range that was not observed yet is infinite
        if value.is_floating_point() and f'.{INPUT_QUANTIZER}.' not in f'.{key}' and not is_finite(value):
            raise CheckpointError(
                f'{checkpoint.path}: {key} has values that are NaN or infinite: the training has diverged, or the file '
                'is damaged; take an earlier checkpoint'
            )
        if key.endswith('.running_var') and (value < 0).any():
            raise CheckpointError(f'{checkpoint.path}: {key} has negative values, which no variance has')
    return list(absent.values())


def _find_absent_heads(model: nn.Module, checkpoint: Checkpoint) -> dict[str, AuxiliaryClsHead]:
    """The heads whose training-only part the checkpoint has nothing of, by the prefix of that part's keys."""
    absent = {}
    for name, module in model.named_modules():
        prefix = f'{name}.aux_heads.'.lstrip('.')
        if isinstance(module, AuxiliaryClsHead) and not any(key.startswith(prefix) for key in checkpoint.state_dict):
            absent[prefix] = module
    return absent

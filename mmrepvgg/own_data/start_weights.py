"""The trained weights with which a fine-tuning starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.convert import read_translated
from ..checkpoints.reading import CheckpointError, read_checkpoint
from ..models.archs import get_arch
from ..models.forms import CheckpointFormError


@dataclass(frozen=True)
class StartWeights:
    """What is known of the weights in a file.

    Attributes:
        path: The file.
        arch: The name of their arch, or the dict of one that has no name.
        backbone: Arguments of the backbone besides ``arch``.
        num_classes: Outputs of their head, or None if they have none.
        must_be_converted: Whether `train` can read the file only when `convert_checkpoint` has converted it.
    """

    path: Path
    arch: str | dict[str, Any]
    backbone: dict[str, Any]
    num_classes: int | None
    must_be_converted: bool


def read_start_weights(weights: str | Path, arch: str | None = None) -> StartWeights:
    """Find out what network the weights in a file are of: a file of any system that `convert_checkpoint` reads.

    Args:
        weights: The file.
        arch: Name of the arch that it must be.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it can't be read.
        CheckpointFormError: If the weights are in deploy form.
        ValueError: If they are of another arch.
    """
    path = Path(weights)
    found = read_translated(path)
    structure = found.structure
    if structure.form == 'deploy':
        raise CheckpointFormError(
            f'{path} is in deploy form, whose plain convolutions train badly; give the checkpoint in train form from '
            'which it was made'
        )
    if arch is not None and get_arch(structure.arch) != get_arch(arch):
        raise ValueError(f'`arch` must be that of {path}, {structure.arch}, or be left out, got {arch}')
    backbone: dict[str, Any] = dict(block='QARepVGGBlock') if structure.is_qarepvgg else {}
    if any(key.startswith('backbone.ppf.') for key in found.weights):
        backbone['add_ppf'] = True
    return StartWeights(
        path=path,
        arch=structure.arch,
        backbone=backbone,
        num_classes=structure.num_classes,
        must_be_converted=not _can_be_loaded(path, set(found.weights)),
    )


def _can_be_loaded(path: Path, keys: set[str]) -> bool:
    """Whether a training reads these keys from the file itself."""
    try:
        return keys <= set(read_checkpoint(path).state_dict)
    except CheckpointError:
        return False

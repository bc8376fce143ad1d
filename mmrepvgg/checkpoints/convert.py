"""A checkpoint file of one system -> a checkpoint file of another."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from .entries import find_weights
from .errors import CheckpointError
from .formats import detect_format, load_any
from .keymaps import SYSTEMS, TARGETS
from .reading import hash_file
from .safetensors_files import write_safetensors
from .structure import Structure, infer_structure
from .translate import Recognition, from_ours, recognise, to_ours
from .writing import WRITABLE_SUFFIXES, replacing, require_writable

AUX_HEADS = 'training-only heads, as asked'
_AUX_PREFIX = 'head.aux_heads.'


@dataclass(frozen=True)
class Translation:
    """The weights of a file under this project's keys, and how they came to be.

    Attributes:
        weights: The state dict.
        structure: The network that it belongs to.
        recognition: The system that it was from, and why.
        file_format: The file's format.
        entry: Where in the file the weights were.
        dropped: The keys that were left out, by the name of the rule that says so.
        meta: The file's ``meta``.
    """

    weights: dict[str, Tensor]
    structure: Structure
    recognition: Recognition
    file_format: str
    entry: str
    dropped: dict[str, list[str]]
    meta: dict[str, Any]

    @property
    def se_after_activation(self) -> bool:
        return SYSTEMS[self.recognition.system].se_after_activation or self.structure.is_l2pse

    @property
    def note(self) -> str:
        """What a user of the weights must know; empty if there is nothing."""
        return SYSTEMS['qarepvgg'].note if self.structure.is_qarepvgg else ''


def read_translated(
    path: str | Path,
    system: str = 'auto',
    *,
    part: str | None = None,
    ema: bool = False,
    drop_aux_heads: bool = False,
) -> Translation:
    """Read the weights of any known system under this project's keys. Nothing in the file is run.

    Args:
        path: A file of ``torch.save``, safetensors, MindSpore or Paddle.
        system: A name in ``SYSTEMS``, or ``'auto'`` to recognise it by the keys.
        part: One network of several in the file: the entry with its weights, or what their names begin with, such as
            ``'Student'``.
        ema: Take the averaged weights.
        drop_aux_heads: Leave out RepVGGplus' training-only heads.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the system is unknown.
        CheckpointError: If the file can't be read, a key is unknown, or the weights are not those of a whole RepVGG.
    """
    path = Path(path)
    if system != 'auto' and system not in SYSTEMS:
        raise ValueError(f'`system` must be auto or one of {", ".join(SYSTEMS)}, got {system!r}')
    file_format = detect_format(path)
    content = load_any(path, file_format)
    entry, found, meta = find_weights(path, content, ema, part)
    keys = [key for key, value in found.items() if isinstance(value, Tensor)]
    try:
        recognition = recognise(keys, file_format) if system == 'auto' else Recognition(system, 'as given')
        ours, dropped = to_ours(found, recognition.system)
        if drop_aux_heads and (heads := [key for key in ours if key.startswith(_AUX_PREFIX)]):
            dropped[AUX_HEADS] = heads
            ours = {key: value for key, value in ours.items() if key not in set(heads)}
        structure = infer_structure(ours)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
    return Translation(ours, structure, recognition, file_format, entry, dropped, meta)


def convert_checkpoint(
    source: str | Path,
    destination: str | Path,
    *,
    system: str = 'auto',
    target: str = 'mmrepvgg',
    part: str | None = None,
    ema: bool = False,
    drop_aux_heads: bool = False,
) -> Translation:
    """Convert a file; every tensor keeps its values and its dtype.

    Args:
        source: A file of ``torch.save``, safetensors, MindSpore or Paddle. Nothing in it is run.
        destination: File to write, ``.pth``, ``.pt`` or ``.safetensors``. It is replaced only by a whole file. One
            for this project holds ``state_dict`` and ``meta`` unless it is safetensors; the others are plain dicts.
        system: The system that the source is from, or ``'auto'`` to recognise it by the keys.
        target: ``'mmrepvgg'`` (mmpretrain's keys), ``'official'`` or ``'timm'``.
        part: One network of several in the source: the entry with its weights, or what their names begin with, such as
            ``'Student'``.
        ema: Take the averaged weights.
        drop_aux_heads: Leave out RepVGGplus' training-only heads.

    Raises:
        ValueError: If ``target``, ``system`` or the destination's suffix is unknown.
        IsADirectoryError, PermissionError: If the destination can't be written.
        CheckpointError: If the source can't be read or translated, or the target has no such network.
    """
    destination = Path(destination)
    if target not in TARGETS:
        raise ValueError(f'`target` must be one of {", ".join(TARGETS)}, got {target!r}')
    if destination.suffix not in WRITABLE_SUFFIXES:
        raise ValueError(f'`destination` must end in one of {", ".join(WRITABLE_SUFFIXES)}, got {str(destination)!r}')
    require_writable(destination)
    translation = read_translated(source, system, part=part, ema=ema, drop_aux_heads=drop_aux_heads)
    try:
        weights = translate_to(translation, target)
    except CheckpointError as error:
        raise CheckpointError(f'{source}: {error}') from error
    # own memory: a tensor that is a piece of a larger one would drag all of it into the file
    weights = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
    meta = dict(translation.meta)
    if target == 'mmrepvgg':
        meta['mmrepvgg'] = dict(
            form=translation.structure.form,
            arch=translation.structure.arch,
            source=Path(source).name,
            source_sha256=hash_file(source),
            source_system=translation.recognition.system,
            version=__version__,
        )
    with replacing(destination) as temporary:
        if destination.suffix == '.safetensors':
            record = {'mmrepvgg': json.dumps(meta['mmrepvgg'])} if target == 'mmrepvgg' else {}
            write_safetensors(weights, temporary, record)
        else:
            torch.save(dict(state_dict=weights, meta=meta) if target == 'mmrepvgg' else weights, temporary)
    return translation


def translate_to(translation: Translation, target: str) -> dict[str, Tensor]:
    """The weights under the keys of one of ``TARGETS``.

    Raises:
        CheckpointError: If the target has no place for one of them, or no such network.
    """
    if target == 'mmrepvgg':
        return translation.weights
    if translation.se_after_activation:
        if target != 'official':
            raise CheckpointError(
                f'{target} has no network with squeeze-and-excitation after the activation (RepVGGplus-L2pse): the '
                'weights would load and compute something else'
            )
        target = 'repvggplus'
    return from_ours(translation.weights, target)

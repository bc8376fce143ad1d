"""The weights from which a training starts."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from ..checkpoints.reading import Checkpoint, CheckpointError, read_checkpoint
from ..models.config_types import get_type_name
from ..models.forms import INPUT_QUANTIZER


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        path: The checkpoint; None for the weights that the config gives, random ones as a rule.
        resumes: Whether the whole state of the training comes from it, and not the weights alone.
        reason: The two in words, for the log.
    """

    path: str | None
    resumes: bool
    reason: str


def choose_start(cfg: Config, work_dir: str, resume: bool | str) -> Start:
    """Choose the checkpoint; the arguments are those of :func:`~mmrepvgg.engine.training.train`.

    As in mmengine, ``resume=True`` and ``load_from`` in the config together mean: go on from ``load_from``. A job that
    is restarted with the same arguments begins with ``load_from``, and goes on with its own checkpoints from then on.
    """
    if isinstance(resume, str):
        return Start(resume, True, f'resuming from {resume}')
    given, goes_on = cfg.get('load_from'), bool(cfg.get('resume'))
    absence = ''
    if resume or (goes_on and given is None):
        if latest := _find_latest(work_dir):
            return Start(latest, True, f'resuming from {latest}, the latest checkpoint of {work_dir}')
        absence = f'{work_dir} has no checkpoint to resume from: '
    if given is None:
        return Start(None, False, f'{absence}starting with the weights that the config gives')
    if goes_on:
        return Start(given, True, f'{absence}resuming from {given}')
    return Start(given, False, f'{absence}starting with the weights of {given}')


def _find_latest(work_dir: str) -> str | None:
    """The checkpoint that mmengine has noted as the last one; in a copied or moved folder the one beside the note."""
    note = Path(os.path.abspath(work_dir), 'last_checkpoint')
    if not note.is_file():
        return None
    noted = Path(note.read_text().strip())
    beside = note.with_name(noted.name)
    return str(beside if beside.exists() else noted)


def read_start(start: Start) -> Checkpoint | None:
    """Read the checkpoint before the Runner does, which in some versions of mmengine would fall back to an unsafe load.

    Raises:
        CheckpointError: If it can't be read, is to be resumed and has no state of a training, or has its weights where
            mmengine does not look for them.
    """
    if start.path is None:
        return None
    checkpoint = read_checkpoint(start.path)
    if start.resumes and not {'epoch', 'iter'} <= checkpoint.meta.keys():
        raise CheckpointError(
            f'{start.path} holds no state of a training, from which one can be resumed; to start with its weights, '
            'set `load_from` of the config, without `resume`'
        )
    _check_entry(checkpoint)
    return checkpoint


def read_pretrained(model_cfg: Mapping[str, Any]) -> list[tuple[Checkpoint, str]]:
    """The files that ``init_cfg`` of a model or of its backbone names.

    Addresses on the network are left to mmengine.

    Returns:
        list[tuple[Checkpoint, str]]: Each file, and what the keys of the backbone begin with in it.

    Raises:
        CheckpointError: If a file can't be read, or has its weights where mmengine does not look for them.
    """
    found = []
    for part, inner in ((model_cfg, 'backbone.'), (model_cfg.get('backbone') or {}, '')):
        for path, prefix in _iterate_pretrained(part):
            if '://' not in path:
                checkpoint = read_checkpoint(path)
                _check_entry(checkpoint)
                found.append((checkpoint, prefix + inner))
    return found


def _iterate_pretrained(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Paths and prefixes, these with a dot at their end."""
    if part.get('pretrained') is not None:  # mmpretrain's classifiers make an init_cfg of it
        yield part['pretrained'], ''
    settings = part.get('init_cfg') or []
    for init_cfg in [settings] if isinstance(settings, Mapping) else settings:
        if get_type_name(init_cfg.get('type')) in ('Pretrained', 'PretrainedInit'):
            prefix = init_cfg.get('prefix') or ''
            yield init_cfg['checkpoint'], f'{prefix.rstrip(".")}.' if prefix else ''


def _check_entry(checkpoint: Checkpoint) -> None:
    if checkpoint.entry not in ('state_dict', 'the file itself'):
        raise CheckpointError(
            f'{checkpoint.path} has its weights in {checkpoint.entry}, where mmengine does not look for them; convert '
            'it with `convert_checkpoint`, and start with the result'
        )


def require_backbone(model: nn.Module, checkpoint: Checkpoint, prefix: str = 'backbone.') -> None:
    """Refuse a checkpoint that leaves parts of the backbone at random values: mmengine only logs that.

    Args:
        model: A model with a ``backbone``.
        checkpoint: What is to be loaded into it.
        prefix: What the keys of the backbone begin with in the checkpoint.

    Raises:
        CheckpointError: If tensors are missing, or have another shape.
    """
    wanted = {
        f'{prefix}{key.removeprefix("backbone.")}': value.shape
        for key, value in model.state_dict().items()
        # files of torch < 0.4.1 have no such counters, and torch fills them in
        if key.startswith('backbone.')
        and not key.endswith('num_batches_tracked')
        # observed yet where the checkpoint has none
        and f'.{INPUT_QUANTIZER}.' not in key
    }
    # an inserted norm starts as the identity function where the checkpoint has none
    if checkpoint.is_deploy_form:
        wanted = {key: shape for key, shape in wanted.items() if '.deploy_norm.' not in key}
    found = checkpoint.state_dict
    if absent := [key for key, shape in wanted.items() if key not in found or found[key].shape != shape]:
        raise CheckpointError(
            f'{checkpoint.path} lacks {len(absent)} of the {len(wanted)} tensors of the backbone, or has them in '
            f'another shape ({absent[0]}, ...); they would be left at random values. Give a checkpoint of the same '
            "arch and form, and for `init_cfg` the prefix of its backbone (prefix='backbone')"
        )


class IgnoreConfigTextHook(Hook):
    """Drops the text of a config that a checkpoint may hold: on resuming, mmengine would execute it."""

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        meta = checkpoint.get('meta')
        if isinstance(meta, dict) and meta.pop('config', None) is not None:
            print_log('the text of a config in the checkpoint is left out', 'current')

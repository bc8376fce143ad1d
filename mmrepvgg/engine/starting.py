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
    """The start of a training.

    Attributes:
        path: The checkpoint, or None for the weights that the config gives (usually random ones).
        resumes: Whether the checkpoint gives the whole state of the training, or only the weights.
        reason: A sentence for the log that says both.
    """

    path: str | None
    resumes: bool
    reason: str


def choose_start(cfg: Config, work_dir: str, resume: bool | str) -> Start:
    """Choose the checkpoint with which a training starts.

    A job that is always started with ``resume=True`` begins with ``load_from`` of the config, and later goes on with
    its own checkpoints. If the config itself has ``resume = True`` and ``load_from``, the training goes on from
    ``load_from``, as in mmengine.

    Args:
        cfg: The config.
        work_dir: Folder of the training's checkpoints.
        resume: A checkpoint to go on from, or True for the latest one in ``work_dir``.
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
    """The checkpoint that mmengine's note ``last_checkpoint`` names.

    The note has an absolute path. If the folder was copied or moved, the checkpoint beside the note is meant.
    """
    note = Path(os.path.abspath(work_dir), 'last_checkpoint')
    if not note.is_file():
        return None
    noted = Path(note.read_text().strip())
    beside = note.with_name(noted.name)
    return str(beside if beside.exists() else noted)


def read_start(start: Start) -> Checkpoint | None:
    """Read the checkpoint safely before the Runner reads it: some versions of mmengine fall back to an unsafe load.

    Raises:
        CheckpointError: If it can't be read, has its weights where mmengine does not look for them, or is to be resumed
            and holds no state of a training.
    """
    if start.path is None:
        return None
    checkpoint = read_checkpoint(start.path)
    if start.resumes and not {'epoch', 'iter'} <= checkpoint.meta.keys():
        raise CheckpointError(
            f'{start.path} holds no state of a training, so it can not be resumed; to start with its weights, set '
            '`load_from` of the config and leave out `resume`'
        )
    _check_entry(checkpoint)
    return checkpoint


def read_pretrained(model_cfg: Mapping[str, Any]) -> list[tuple[Checkpoint, str]]:
    """Read the files that ``init_cfg`` of a model or of its backbone names. mmengine itself reads network addresses.

    Returns:
        list[tuple[Checkpoint, str]]: Each file, and the prefix of the backbone's keys in it.

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
    """Paths, and prefixes of keys with a dot at the end."""
    if part.get('pretrained') is not None:  # mmpretrain's classifiers turn it into an init_cfg
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
            'it with `convert_checkpoint` and start with the result'
        )


def require_backbone(model: nn.Module, checkpoint: Checkpoint, prefix: str = 'backbone.') -> None:
    """Refuse a checkpoint that would leave parts of the backbone at random values. mmengine only logs that.

    Args:
        model: A model with a ``backbone``.
        checkpoint: The checkpoint that will be loaded into it.
        prefix: Prefix of the backbone's keys in the checkpoint.

    Raises:
        CheckpointError: If tensors are missing, or have another shape.
    """
    wanted = {
        f'{prefix}{key.removeprefix("backbone.")}': value.shape
        for key, value in model.state_dict().items()
        # files of torch < 0.4.1 have no such counters, and torch fills them in
        if key.startswith('backbone.')
        and not key.endswith('num_batches_tracked')
        # a range that the checkpoint lacks is observed before training
        and f'.{INPUT_QUANTIZER}.' not in key
    }
    # an inserted norm that the checkpoint lacks starts as the identity function
    if checkpoint.is_deploy_form:
        wanted = {key: shape for key, shape in wanted.items() if '.deploy_norm.' not in key}
    found = checkpoint.state_dict
    if absent := [key for key, shape in wanted.items() if key not in found or found[key].shape != shape]:
        raise CheckpointError(
            f'{checkpoint.path} lacks {len(absent)} of the {len(wanted)} tensors of the backbone, or has them in '
            f'another shape ({absent[0]}, ...); they would keep random values. Give a checkpoint of the same arch and '
            "form; if `init_cfg` names it, give also the prefix of its backbone (prefix='backbone')"
        )


class IgnoreConfigTextHook(Hook):
    """Removes the text of a config from a loaded checkpoint. mmengine would execute that text when it resumes."""

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        meta = checkpoint.get('meta')
        if isinstance(meta, dict) and meta.pop('config', None) is not None:
            print_log('the text of a config in the checkpoint is ignored', 'current')

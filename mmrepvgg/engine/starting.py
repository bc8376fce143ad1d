"""The weights from which a training starts."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from mmengine.config import Config
from torch import nn

from ..checkpoints.entries import WRAPPERS
from ..checkpoints.reading import Checkpoint, CheckpointError, read_checkpoint
from ..checkpoints.translate import explain_keys
from ..checkpoints.writing import replacing
from ..models.blocks import RepVGGBlock
from ..models.config_types import get_type_name
from ..models.forms import INPUT_QUANTIZER, CheckpointFormError, check_forms
from .latest import find_latest, read_state


@dataclass(frozen=True)
class Start:
    """The start of a training.

    Attributes:
        checkpoint: The checkpoint, or None for the weights that the config gives (usually random ones).
        resumes: Whether the checkpoint gives the whole state of the training, or only the weights.
        reason: A sentence for the log that says both.
        skipped: Why later checkpoints of the work dir were not taken.
    """

    checkpoint: Checkpoint | None
    resumes: bool
    reason: str
    skipped: tuple[str, ...] = ()

    @property
    def path(self) -> str | None:
        return str(self.checkpoint.path) if self.checkpoint else None


def choose_start(cfg: Config, work_dir: str, resume: bool | str) -> Start:
    """Choose the checkpoint with which a training starts, and read it safely before the Runner does.

    A job that is always started with ``resume=True`` begins with ``load_from`` of the config, and later goes on with
    its own checkpoints. If the config itself has ``resume = True`` and ``load_from``, the training goes on from
    ``load_from``, as in mmengine.

    Args:
        cfg: The config.
        work_dir: Folder of the training's checkpoints.
        resume: A checkpoint to go on from, or True for the latest whole one in ``work_dir``.

    Raises:
        CheckpointError: If it can't be read, or is to be resumed and holds no state of a training.
    """
    if isinstance(resume, str):
        return Start(read_state(resume), True, f'resuming from {resume}')
    given, goes_on = cfg.get('load_from'), bool(cfg.get('resume'))
    absence = ''
    if resume or (goes_on and given is None):
        latest = find_latest(work_dir)
        if found := latest.checkpoint:
            reason = f'resuming from {found.path}, the latest whole checkpoint of {work_dir}'
            return Start(found, True, reason, latest.skipped)
        absence = f'{work_dir} has no checkpoint to resume from: '
    if given is None:
        return Start(None, False, f'{absence}starting with the weights that the config gives')
    if goes_on:
        return Start(read_state(given), True, f'{absence}resuming from {given}')
    return Start(_read_given(given), False, f'{absence}starting with the weights of {given}')


def _read_given(address: str) -> Checkpoint:
    """Read ``load_from`` of a config: a file, or what the address of one gives."""
    scheme = address.partition('://')[0]
    if scheme == address:
        return read_checkpoint(address)
    if scheme not in ('http', 'https'):
        raise CheckpointError(
            f'`load_from` must be a file or an address with http:// or https://, got {address}; fetch the file, and '
            'give that'
        )
    # every address has a place of its own, and is asked again at each start
    name = f'{hashlib.sha256(address.encode()).hexdigest()[:12]}-{Path(urlsplit(address).path).name}'
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    try:
        with replacing(path) as temporary:
            torch.hub.download_url_to_file(address, str(temporary), progress=sys.stderr.isatty())
    except OSError as error:  # those of urllib are, too
        raise CheckpointError(f'{address} can not be fetched: {error}') from error
    return read_checkpoint(path)


def read_pretrained(model_cfg: Mapping[str, Any]) -> list[tuple[Checkpoint, str]]:
    """Read the files that ``init_cfg`` of a model or of its backbone names. mmengine itself reads network addresses.

    Prefixes in ``model_cfg`` are changed to those that the keys have without the names of wrappers.

    Returns:
        list[tuple[Checkpoint, str]]: Each file, and the prefix of the backbone's keys in it.

    Raises:
        CheckpointError: If a file can't be read.
    """
    found = []
    for part, inner in ((model_cfg, 'backbone.'), (model_cfg.get('backbone') or {}, '')):
        for init_cfg in _iterate_pretrained(part):
            if '://' not in init_cfg['checkpoint']:
                checkpoint = read_checkpoint(init_cfg['checkpoint'])
                prefix = _find_prefix(init_cfg, checkpoint)
                if init_cfg.get('prefix'):
                    init_cfg['prefix'] = prefix or None
                found.append((checkpoint, prefix + inner))
    return found


def _iterate_pretrained(part: Mapping[str, Any]) -> Iterator[Any]:
    if part.get('pretrained') is not None:  # mmpretrain's classifiers turn it into an init_cfg
        yield dict(checkpoint=part['pretrained'])
    settings = part.get('init_cfg') or []
    for init_cfg in [settings] if isinstance(settings, Mapping) else settings:
        if get_type_name(init_cfg.get('type')) in ('Pretrained', 'PretrainedInit'):
            yield init_cfg


def _find_prefix(init_cfg: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """The prefix with a dot at its end, and without the names of wrappers, which the reader has taken off the keys."""
    prefix = init_cfg.get('prefix') or ''
    prefix = f'{prefix.rstrip(".")}.' if prefix else ''
    while not any(key.startswith(prefix) for key in checkpoint.state_dict):
        wrapper = next((wrapper for wrapper in WRAPPERS if prefix.startswith(wrapper)), None)
        if wrapper is None:
            break
        prefix = prefix.removeprefix(wrapper)
    return prefix


def require_backbone(model: nn.Module, checkpoint: Checkpoint, prefix: str = 'backbone.') -> None:
    """Refuse a checkpoint that would leave parts of the backbone at random values. mmengine only logs that.

    Args:
        model: A model with a ``backbone``.
        checkpoint: The checkpoint that will be loaded into it.
        prefix: Prefix of the backbone's keys in the checkpoint.

    Raises:
        CheckpointFormError: If the checkpoint is in another form than the model.
        CheckpointError: If tensors are missing, or have another shape.
    """
    _require_form(model, checkpoint, prefix)
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
        remedy = explain_keys(found) or (
            '. Give a checkpoint of the same arch and form; if `init_cfg` names it, give also the prefix of its '
            "backbone (prefix='backbone')"
        )
        raise CheckpointError(
            f'{checkpoint.path} lacks {len(absent)} of the {len(wanted)} tensors of the backbone, or has them in '
            f'another shape ({absent[0]}, ...); they would keep random values{remedy}'
        )


def _require_form(model: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
    blocks = {}
    for name, module in model.named_modules():
        name = name.replace('_fsdp_wrapped_module.', '')
        if isinstance(module, RepVGGBlock) and name.startswith('backbone.'):
            blocks[f'{prefix}{name.removeprefix("backbone.")}.'] = module
    try:
        check_forms(blocks, checkpoint.state_dict)
    except CheckpointFormError as error:
        raise CheckpointFormError(f'{checkpoint.path}: {error}') from None


def require_branches(model: nn.Module) -> None:
    """Refuse to train blocks in deploy form from random values: without batch norms they hardly learn.

    Raises:
        CheckpointFormError: If a block that is trained is in deploy form.
    """
    for module in model.modules():
        if isinstance(module, RepVGGBlock) and module.deploy and any(p.requires_grad for p in module.parameters()):
            raise CheckpointFormError(
                'the model is in deploy form, which has no branches and no batch norms and hardly learns from random '
                'weights; train the train form (`model.backbone.deploy=False`) and switch it afterwards, or give '
                'weights in deploy form to start from (`load_from=FILE`)'
            )


def require_same_shapes(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse to resume a training of a model with other tensors, such as a head for other classes.

    Raises:
        CheckpointError: If a tensor has another shape than in the model.
    """
    for key, value in model.state_dict().items():
        found = checkpoint.state_dict.get(key)
        if found is not None and found.shape != value.shape:
            raise CheckpointError(
                f'{checkpoint.path} has {key} with the shape {tuple(found.shape)}, and the model {tuple(value.shape)}: '
                'only a training of the same model (same arch, same number of classes) can be resumed. To start with '
                'its backbone, set `load_from` of the config and leave out `resume`'
            )

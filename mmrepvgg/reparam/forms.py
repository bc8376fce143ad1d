"""The model of a config in the form of its checkpoint.

A model that holds blocks of this project has a config for each form, and keys that tell the form. Any other model, such
as one of timm, is switched by its structure: the deploy form is what ``reparameterize`` makes of the train form, and
its keys depend on the structure alone.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmengine.config import Config
from torch import nn

from ..checkpoints.loading import load_weights
from ..checkpoints.reading import Checkpoint
from ..models.blocks import RepVGGBlock
from ..models.building import NoRandomWeights, build_model
from .block_report import report_blocks
from .report import SwitchReport
from .switch import reparameterize, switch_own_blocks

M = TypeVar('M', bound=nn.Module)


@dataclass(frozen=True)
class LoadedModel:
    """A model with the weights of a checkpoint, in eval mode.

    Attributes:
        model: The model, in the form of the checkpoint.
        is_deploy_form: Whether that is the deploy form.
    """

    model: Any
    is_deploy_form: bool


@dataclass(frozen=True)
class Switched(Generic[M]):
    """A model in deploy form.

    Attributes:
        model: The model.
        report: What was fused and what is left.
    """

    model: M
    report: SwitchReport


def load_model(cfg: Config, checkpoint: Checkpoint) -> LoadedModel:
    """Build the model of a config in the form of a checkpoint, and load the weights.

    Args:
        cfg: The train config, or its deploy twin.
        checkpoint: Weights of the whole model, in either form.

    Raises:
        CheckpointFormError, CheckpointError: If the weights do not fit in any form.
    """
    model = build_form_of(cfg, checkpoint)
    load_weights(model.model, checkpoint)
    return model


def build_form_of(cfg: Config, checkpoint: Checkpoint) -> LoadedModel:
    """Build the model of a config in the form of a checkpoint, without its weights."""
    model = build_model(cfg, deploy=checkpoint.is_deploy_form)
    is_switched = get_form(checkpoint) == 'deploy'
    if holds_own_blocks(model) or (_fits(model, checkpoint) and not is_switched):
        return LoadedModel(model, checkpoint.is_deploy_form)
    switched = build_form(cfg, deploy=True)
    if is_switched or _fits(switched, checkpoint):
        return LoadedModel(switched, True)
    return LoadedModel(model, checkpoint.is_deploy_form)


def build_form(cfg: Config, deploy: bool) -> nn.Module:
    """Build the model of a config in a form, as ``build_model`` does, or by the structure of the train form.

    A form that the structure gives has zeros as weights.
    """
    model = build_model(cfg, deploy)
    if not deploy or holds_own_blocks(model):
        return model
    model = build_model(cfg, deploy=False)
    # its memory may hold anything (NoRandomWeights), numbers that can't be fused, too
    _fill(model, 1)
    model = switch(model).model
    _fill(model, 0)
    return model


def _fill(model: nn.Module, number: int) -> None:
    for value in model.state_dict().values():
        value.fill_(number)


def switch(model: M) -> Switched[M]:
    """Switch a copy of a model: its blocks of this project, or else what its structure allows."""
    if holds_own_blocks(model):
        switched = switch_own_blocks(model)
        return Switched(switched, report_blocks(model, switched))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # said below, in words that commands have, too
        switched, report = reparameterize(model, return_report=True)
    return Switched(switched, report)


def warn_of_branches(report: SwitchReport) -> None:
    """Warn if parallel linear branches are left."""
    if left := report.describe_branches():
        warnings.warn(f'{left}. `reparameterize_checkpoint` names all with `report`', stacklevel=1)


def holds_own_blocks(model: nn.Module) -> bool:
    """Whether a model holds blocks of this project, which alone are switched then."""
    return any(isinstance(module, RepVGGBlock) for module in model.modules())


def has_own_blocks(cfg: Config) -> bool:
    """Whether the model of a config holds blocks of this project."""
    with NoRandomWeights():
        return holds_own_blocks(build_model(cfg, deploy=True))


def get_form(checkpoint: Checkpoint) -> str | None:
    """The form that ``reparameterize_checkpoint`` noted in a file; None in files of others."""
    record = checkpoint.meta.get('mmrepvgg')
    return record.get('form') if isinstance(record, dict) else None


def _fits(model: nn.Module, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint has the keys of a model. Old ones lack the counters of batches."""
    keys = model.state_dict().keys() ^ checkpoint.state_dict.keys()
    return all(key.endswith('num_batches_tracked') for key in keys)

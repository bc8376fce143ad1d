"""The trainings of the study, each through mmengine's Runner."""

import copy
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmrepvgg.checkpoints.loading import load_weights
from mmrepvgg.checkpoints.reading import read_checkpoint
from mmrepvgg.checkpoints.writing import replacing
from mmrepvgg.engine.training import train
from mmrepvgg.models.building import build_model
from mmrepvgg.models.fake_quant import set_fake_quantization

from .accuracy import measure_accuracy
from .subjects import KINDS, RECIPES, Recipe, Subject

MAX_ATTEMPTS = 3
RECORD = 'trained.json'


@dataclass(frozen=True)
class Plan:
    """The lengths of the trainings of a study.

    Attributes:
        min_accuracy: Accuracy on the test images, in percent. A model below it is trained again with 50% more epochs,
            up to ``MAX_ATTEMPTS`` times in all. None means that the first attempt counts.
        max_epochs: Largest number of epochs of a training, for a trial; None for no limit.
    """

    min_accuracy: float | None = None
    max_epochs: int | None = None


def train_subject(base: Config, subject: Subject, work_dir: Path, plan: Plan) -> tuple[Config, Path]:
    """Train one model, unless ``work_dir`` has it already.

    Args:
        base: The config of a RepVGG with its data.
        subject: The model.
        work_dir: Folder of the study. The model gets a folder in it.
        plan: The lengths of trainings.

    Returns:
        tuple[Config, Path]: The config with which it was trained, and its checkpoint in train form.

    Raises:
        ValueError: If ``work_dir`` has a model that was trained otherwise.
    """
    folder = work_dir / subject.name
    finished, origin = folder / RECORD, _identify(base, subject, plan)
    if not finished.exists():
        epochs = subject.count_epochs(plan.max_epochs)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            cfg = _make_config(base, subject, work_dir, plan, epochs)
            checkpoint = train(copy.deepcopy(cfg), str(folder / f'{epochs}-epochs'))
            if attempt == MAX_ATTEMPTS or _is_good(cfg, str(checkpoint), plan):
                break
            epochs += max(1, epochs // 2)
        record = dict(origin=origin, epochs=epochs, checkpoint=os.path.relpath(str(checkpoint), folder))
        with replacing(finished) as temporary:
            temporary.write_text(json.dumps(record))
    record = json.loads(finished.read_text())
    if record['origin'] != origin:
        raise ValueError(f'{folder} is of another config, data set or length of training; give another `work_dir`')
    return _make_config(base, subject, work_dir, plan, record['epochs']), folder / record['checkpoint']


def is_trained(base: Config, subject: Subject, work_dir: Path, plan: Plan) -> bool:
    """Whether ``work_dir`` has this model, trained in this way."""
    finished = work_dir / subject.name / RECORD
    return finished.exists() and json.loads(finished.read_text())['origin'] == _identify(base, subject, plan)


def _identify(base: Config, subject: Subject, plan: Plan) -> str:
    """A hash of everything that determines a training."""
    parts = [base.pretty_text, str(plan), str(RECIPES[subject.recipe]), str(KINDS[subject.kind]), str(subject)]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _is_good(cfg: Config, checkpoint: str, plan: Plan) -> bool:
    if plan.min_accuracy is None:
        return True
    model: Any = build_model(cfg, deploy=False)
    load_weights(model, read_checkpoint(checkpoint))
    # with rounding, because the unrounded weights of quantization-aware training may be useless
    set_fake_quantization(model, enabled=True)
    return measure_accuracy(cfg, model) >= plan.min_accuracy


def _make_config(base: Config, subject: Subject, work_dir: Path, plan: Plan, epochs: int) -> Config:
    recipe, kind = RECIPES[subject.recipe], KINDS[subject.kind]
    cfg = copy.deepcopy(base)
    cfg.merge_from_dict(dict(kind.settings))
    cfg.randomness = dict(seed=subject.seed)
    cfg.optim_wrapper.optimizer.lr = recipe.lr * (0.1 if subject.is_fine_tuned else 1)
    # without the label smoothing of the config, which makes the weights smaller too
    cfg.model.head.loss = dict(type='CrossEntropyLoss')
    cfg.param_scheduler = _make_scheduler(recipe, epochs, subject.is_fine_tuned)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=epochs, max_keep_ckpts=1)
    if subject.is_fine_tuned:
        cfg.load_from = str(train_subject(base, subject.start, work_dir, plan)[1])
    return cfg


def _make_scheduler(recipe: Recipe, epochs: int, is_fine_tuned: bool) -> dict[str, Any]:
    common = dict(by_epoch=True, begin=0, end=epochs, convert_to_iter_based=True)
    if recipe.schedule == 'one-cycle' and not is_fine_tuned:
        return dict(type='OneCycleLR', eta_max=recipe.lr, total_steps=epochs, **common)
    return dict(type='CosineAnnealingLR', T_max=epochs, eta_min=0.0, **common)

"""The two forms of a model side by side: size, cost, accuracy, speed and agreement."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor

from ..checkpoints.loading import load_weights
from ..checkpoints.reading import read_checkpoint
from ..measures.timing import summarise, time_interleaved
from ..models.building import build_model
from ..models.complexity import count_macs, count_params
from ..progress import track


@dataclass(frozen=True)
class Form:
    """One row of the comparison.

    Attributes:
        name: ``'train'`` or ``'deploy'``.
        params: Number of parameters.
        macs: Multiply-adds of convolutions and linear layers for one image.
        accuracy: Top-1 in percent.
        latency: Median seconds for one image, batch size 1.
    """

    name: str
    params: int
    macs: int
    accuracy: float
    latency: float


@dataclass(frozen=True)
class Comparison:
    """Both forms on the test set.

    Attributes:
        forms: The train form and the deploy form.
        num_images: Images in the test set.
        num_different: Images for which the two forms predict different classes.
        max_difference: Largest absolute difference of two logits.
        max_logit: Largest absolute logit.
    """

    forms: tuple[Form, Form]
    num_images: int
    num_different: int
    max_difference: float
    max_logit: float


@torch.no_grad()
def compare_forms(cfg: Config, train_checkpoint: str | Path, deploy_checkpoint: str | Path) -> Comparison:
    """Run a trained checkpoint and its deploy form over the test set of ``cfg``, image by image the same input.

    Both compute in floating point, also where training simulated int8.

    Raises:
        CheckpointError: If a checkpoint can't be read safely or does not fit.
        CheckpointFormError: If a checkpoint is in the wrong form.
    """
    models: list[Any] = [build_model(cfg, deploy) for deploy in (False, True)]
    for model, path in zip(models, (train_checkpoint, deploy_checkpoint), strict=True):
        load_weights(model, read_checkpoint(path))

    logits: tuple[list[Tensor], list[Tensor]] = ([], [])
    labels: list[int] = []
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        dataloader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    for batch in track(dataloader, 'comparing the forms'):
        data = models[0].data_preprocessor(batch)
        labels += [sample.gt_label.item() for sample in data['data_samples']]
        for model, outputs in zip(models, logits, strict=True):
            outputs.append(model(data['inputs']))
    train_logits, deploy_logits = (torch.cat(outputs) for outputs in logits)
    image = data['inputs'][:1]

    times = time_interleaved([partial(model, image) for model in models], repeats=30, warm_up=5)
    latencies = [summarise(taken).median for taken in times]
    truth = torch.tensor(labels)
    forms = [
        Form(
            name=name,
            params=count_params(model),
            macs=count_macs(model, image),
            accuracy=100 * (outputs.argmax(1) == truth).double().mean().item(),
            latency=latency,
        )
        for name, model, outputs, latency in zip(
            ('train', 'deploy'), models, (train_logits, deploy_logits), latencies, strict=True
        )
    ]
    return Comparison(
        forms=(forms[0], forms[1]),
        num_images=len(truth),
        num_different=int((train_logits.argmax(1) != deploy_logits.argmax(1)).sum()),
        max_difference=(train_logits - deploy_logits).abs().max().item(),
        max_logit=train_logits.abs().max().item(),
    )

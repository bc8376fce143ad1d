"""The two forms of a model side by side: size, cost, accuracy, speed and agreement."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..checkpoints.formats import read_weights
from ..checkpoints.loading import load_weights
from ..data.classes import get_trained_classes
from ..data.samples import Samples
from ..measures.accuracy import Tally
from ..measures.difference import Difference
from ..measures.timing import summarise, time_interleaved
from ..models.complexity import count_macs, count_params
from ..progress import track
from .forms import build_form


@dataclass(frozen=True)
class Form:
    """One row of the comparison.

    Attributes:
        name: ``'train'`` or ``'deploy'``.
        params: Number of parameters.
        macs: Number of multiply-adds of convolutions and linear layers for one image.
        accuracy: Top-1 accuracy in percent.
        latency: Median time in seconds for one image (batch size 1).
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
        forms: Train form and deploy form.
        num_images: Number of images in the test set.
        num_different: Number of images for which the two forms predict different classes.
        max_difference: Largest absolute difference between logits of the two forms.
        max_logit: Largest absolute logit of the train form.
    """

    forms: tuple[Form, Form]
    num_images: int
    num_different: int
    max_difference: float
    max_logit: float


@torch.no_grad()
def compare_forms(cfg: Config, train_checkpoint: str | Path, deploy_checkpoint: str | Path) -> Comparison:
    """Run a trained checkpoint and its deploy form on the same images: the test set of ``cfg``.

    Both compute in floating point, even if training simulated int8.

    Args:
        cfg: Config of the training, or its deploy twin.
        train_checkpoint: The trained checkpoint.
        deploy_checkpoint: The checkpoint that ``reparameterize_checkpoint`` made of it.

    Raises:
        CheckpointError: If a checkpoint can't be read safely or does not fit.
        CheckpointFormError: If a checkpoint is in the wrong form.
        ValueError: If the test images can't be read, have no labels, or are of other classes than the model.
    """
    checkpoints = [read_weights(path) for path in (train_checkpoint, deploy_checkpoint)]
    models: list[Any] = [build_form(cfg, deploy) for deploy in (False, True)]
    for model, checkpoint in zip(models, checkpoints, strict=True):
        load_weights(model, checkpoint)

    right, agreeing, difference = (Tally(), Tally()), Tally(), Difference()
    samples = Samples(cfg, 'test', get_trained_classes(checkpoints[0].meta))
    batch_size = cfg.test_dataloader.get('batch_size', 1)
    batches = samples.iterate(batch_size=batch_size)
    for images, labels in track(batches, 'comparing the forms', math.ceil(len(samples) / batch_size)):
        if labels is None:
            raise ValueError('the test images of the config must have labels, with which accuracy is measured')
        inputs = models[0].data_preprocessor(dict(inputs=images))['inputs']
        train_logits, deploy_logits = (model(inputs) for model in models)
        for tally, logits in zip(right, (train_logits, deploy_logits), strict=True):
            tally.add(logits, labels)
        agreeing.add(deploy_logits, train_logits)
        difference.add(train_logits, deploy_logits)

    image = inputs[:1]
    times = time_interleaved([partial(model, image) for model in models], repeats=30, warm_up=5)
    train_form, deploy_form = (
        Form(name, count_params(model), count_macs(model, image), tally.percent, summarise(taken).median)
        for name, model, tally, taken in zip(('train', 'deploy'), models, right, times, strict=True)
    )
    return Comparison(
        forms=(train_form, deploy_form),
        num_images=agreeing.num_images,
        num_different=agreeing.num_images - agreeing.num_equal,
        max_difference=difference.largest,
        max_logit=difference.largest_output,
    )

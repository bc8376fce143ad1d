"""Top-1 accuracy on the test images."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.measures.accuracy import Tally
from mmrepvgg.runtimes.prepared import normalise


@torch.no_grad()
def measure_accuracy(cfg: Config, model: Any, network: Callable[[Tensor], Tensor] | None = None) -> float:
    """Top-1 in percent on the config's test images.

    Args:
        cfg: The config.
        model: Classifier, whose data preprocessor normalises the images.
        network: Function from normalised images to scores. Default: the classifier itself.
    """
    tally = Tally()
    for images, labels in iterate_samples(cfg, 'test', batch_size=64):
        if labels is None:
            raise ValueError('the test images of the config have no labels, which accuracy needs')
        tally.add((network or model)(normalise(model, images)), labels)
    return tally.percent

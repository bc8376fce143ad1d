"""Top-1 accuracy on the test images."""

from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmrepvgg.data.samples import iterate_samples


@torch.no_grad()
def measure_accuracy(cfg: Config, network: nn.Module, data_preprocessor: Any) -> float:
    """Top-1 in percent of ``network``, which takes what ``data_preprocessor`` makes of the config's test images."""
    num_right = num_images = 0
    for images, labels in iterate_samples(cfg, 'test', batch_size=64):
        if labels is None:
            raise ValueError('the test images of the config have no labels, by which accuracy is measured')
        scores = network(data_preprocessor(dict(inputs=images))['inputs'])
        num_right += int((scores.argmax(1) == labels).sum())
        num_images += len(labels)
    return 100 * num_right / num_images

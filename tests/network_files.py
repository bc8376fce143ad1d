"""A small network with random weights in a folder: its config, a checkpoint and an ONNX file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmrepvgg.models.building import build_model
from mmrepvgg.runtimes.export import export_model

NARROW = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.25] * 4)


def write_network_files(
    folder: Path, cfg: Config, randomise: Callable[[nn.Module], nn.Module], classes: Sequence[str] = ()
) -> None:
    """Write ``config.py``, ``model.pth`` and ``model.onnx``, for images of 32 x 32. The config gets a narrow arch."""
    cfg.model.backbone.arch = NARROW
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    model = randomise(build_model(cfg, deploy=False))
    nn.init.normal_(model.head.fc.weight)  # scores that differ between images
    meta = dict(dataset_meta=dict(classes=classes)) if classes else {}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'model.pth')
    export_model(cfg, folder / 'model.pth', folder / 'model.onnx', input_size=(32, 32))

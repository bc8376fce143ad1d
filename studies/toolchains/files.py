"""What the toolchains get: images, and each model as float files, as it is and equalized."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmrepvgg.checkpoints.writing import replacing
from mmrepvgg.data.samples import iterate_samples
from mmrepvgg.handoff.preprocessed import write_inputs
from mmrepvgg.models.building import build_model
from mmrepvgg.reparam.checkpoint import reparameterize_checkpoint
from mmrepvgg.runtimes.export import export_model
from mmrepvgg.runtimes.prepared import normalise

from .models import Model

PLAIN, EQUALIZED = 'plain', 'equalized'
FORMS = (PLAIN, EQUALIZED)

# What the oldest of the toolchains takes.
_OPSET = 17


def write_images(cfg: Config, folder: Path, num_samples: int) -> tuple[Path, Path]:
    """Write the training images for the calibration, and all test images, unless they are there.

    Args:
        cfg: The config.
        folder: Folder that gets them.
        num_samples: Number of training images.

    Returns:
        tuple[Path, Path]: An ``.npy`` file of normalised images ``(N, C, H, W)``, and a folder of
            :func:`~mmrepvgg.handoff.preprocessed.write_inputs`.
    """
    calibration, test = folder / 'calibration.npy', folder / 'test'
    if not calibration.exists():
        model: Any = build_model(cfg, deploy=True).eval()
        images = [normalise(model, batch).numpy() for batch, _ in iterate_samples(cfg, 'train', num_samples)]
        with replacing(calibration) as temporary:
            np.save(temporary, np.concatenate(images))
    if not test.exists():
        write_inputs(cfg, test)
    return calibration, test


def write_model(
    cfg: Config, model: Model, form: str, folder: Path, suffixes: Collection[str], data: Path | None
) -> None:
    """Write a model in deploy form as ``<form>.pth``, and as a float file for each suffix, unless they are there.

    Args:
        cfg: The config of the model.
        model: The model, its checkpoint in train form.
        form: ``'plain'``, or ``'equalized'`` with rescaled channels.
        folder: Folder that gets the files.
        suffixes: Endings of the float files.
        data: Images by which the model is equalized; None for its weights alone.
    """
    deployed = folder / f'{form}.pth'
    if not deployed.exists():
        options: dict[str, Any] = dict(equalize=True, data=data) if form == EQUALIZED else {}
        reparameterize_checkpoint(cfg, model.checkpoint, deployed, **options)
    for suffix in suffixes:
        path = deployed.with_suffix(suffix)
        if not path.exists():
            export_model(cfg, deployed, path, dynamic_batch=False, opset=_OPSET if suffix == '.onnx' else None)

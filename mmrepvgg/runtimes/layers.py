"""A checkpoint and its deploy form or exported file, compared layer by layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from ..checkpoints.errors import list_keys
from ..checkpoints.loading import load_weights
from ..checkpoints.reading import read_checkpoint
from ..data.images import find_input_size
from ..measures.difference import Difference
from ..models.blocks import RepVGGBlock
from ..models.building import build_model
from ..reparam.layers import record_layers
from .export import DEFAULT_TOLERANCES, iterate_inputs
from .loading import load_exported
from .metadata import ExportMetadata
from .prepared import normalise
from .table import find_format, is_exported

# Name of the row of the model's output.
OUTPUT = 'scores'

# A function from images to the outputs of layers, by their names.
_Compute = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class LayerComparison:
    """How much two models differ in each layer.

    Attributes:
        differences: The difference of each layer, by its name, in the order in which they are computed; the scores are
            the last.
        tolerance: Largest allowed difference, relative to the largest output of the layer; None if none is known.
        shows_layers: Whether the layers of the other model could be seen, and not only its scores.
    """

    differences: dict[str, Difference]
    tolerance: float | None
    shows_layers: bool

    @property
    def first(self) -> str | None:
        """The first layer whose difference exceeds the tolerance, or is NaN."""
        tolerance = float('inf') if self.tolerance is None else self.tolerance
        return next((name for name, found in self.differences.items() if found.exceeds(tolerance)), None)


def compare_layers(
    cfg: Config,
    checkpoint: str | Path,
    other: str | Path,
    *,
    data: str | Path | None = None,
    tolerance: float | None = None,
) -> LayerComparison:
    """Run a checkpoint and what was made of it on the same images, and compare the output of each layer.

    Layers are the blocks, before SE and activation; the convolutions of SE; and the head. ONNX, OpenVINO, torch.export
    and safetensors files show them. Files of other formats are compared at their scores.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: A checkpoint of the classifier, in either form. PyTorch computes it in float32.
        other: Another checkpoint, or an exported file.
        data: Image or folder of images. Default: seeded noise.
        tolerance: Largest allowed difference, relative to the largest output of the layer. Default: that of the export
            for the precision of the file; none for int8.

    Raises:
        CheckpointError: If a file can't be read, or does not fit.
        ValueError: If the images do not fit the file, or the two are of different models.
    """
    model = _load_model(cfg, checkpoint)
    compute, metadata, shows_layers = _open(cfg, other)
    if metadata is None:
        stem = next(module for module in model.modules() if isinstance(module, RepVGGBlock))
        shape, precision = (stem.in_channels, *find_input_size(cfg)), 'fp32'
    else:
        shape, precision = (metadata.channels, *metadata.input_size), metadata.precision
    differences: dict[str, Difference] = {}
    for images in iterate_inputs(cfg, shape, data):
        normalised = normalise(model, images)
        expected = _compute_layers(model, normalised)
        if metadata is not None and metadata.softmax:
            expected[OUTPUT] = expected[OUTPUT].softmax(1)
        actual = compute(images if metadata is not None and metadata.with_preprocess else normalised)
        if shows_layers and (missing := expected.keys() - actual.keys()):
            raise ValueError(f'{other} must have the layers of {checkpoint}, but lacks {list_keys(sorted(missing), 3)}')
        for name in [name for name in expected if name in actual]:
            if expected[name].shape != actual[name].shape:
                raise ValueError(
                    f'{name} of {other} must be as large as in {checkpoint}, {tuple(expected[name].shape)}, got '
                    f'{tuple(actual[name].shape)}: it was made from another model'
                )
            differences.setdefault(name, Difference()).add(expected[name], actual[name].float())
    allowed = DEFAULT_TOLERANCES.get(precision) if tolerance is None else tolerance
    return LayerComparison(differences, allowed, shows_layers)


def _open(cfg: Config, path: str | Path) -> tuple[_Compute, ExportMetadata | None, bool]:
    """What computes the layers of a checkpoint or exported file, the file's metadata, and whether it shows layers."""
    if not is_exported(path):
        return partial(_compute_layers, _load_model(cfg, path)), None, True
    exported = load_exported(path)
    show = find_format(path).load_layers(Path(path))
    size = exported.metadata.batch_size

    def compute(x: Tensor) -> dict[str, Tensor]:
        layers: dict[str, Tensor] = {}
        if show is not None:
            padded = x if size is None else F.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % size))
            parts = [show(chunk) for chunk in padded.split(size or len(x))]
            layers = {name: torch.cat([part[name] for part in parts])[: len(x)] for name in parts[0]}
        return layers | {OUTPUT: exported(x)}

    return compute, exported.metadata, show is not None


def _load_model(cfg: Config, path: str | Path) -> Any:
    weights = read_checkpoint(path)
    model = build_model(cfg, deploy=weights.is_deploy_form)
    load_weights(model, weights)
    return model


def _compute_layers(model: Any, normalised: Tensor) -> dict[str, Tensor]:
    scores, layers = record_layers(model, normalised)
    return layers | {OUTPUT: scores}

"""The preparation of a checkpoint for all formats: it is read, switched and described."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmpretrain.models.classifiers import BaseClassifier
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.formats import read_weights
from ..checkpoints.reading import Checkpoint, hash_file
from ..data.classes import get_trained_classes, require_single_label
from ..data.images import find_input_size
from ..data.plain_pipelines import Pipeline, describe_pipeline
from ..data.wrappers import get_dataset, get_test_pipeline, iterate_datasets
from ..models.channels import get_in_channels
from ..models.config_types import get_type_name
from ..reparam.forms import load_model, switch, warn_of_branches
from .metadata import ExportMetadata
from .network import ExportError


@dataclass(frozen=True)
class PreparedModel:
    """A checkpoint, ready to be written.

    Attributes:
        model: Classifier in the form of the checkpoint. Its data preprocessor normalises images.
        deployed: Classifier in deploy form.
        metadata: Description of the file.
        was_switched: Whether the checkpoint was in train form.
    """

    model: Any
    deployed: nn.Module
    metadata: ExportMetadata
    was_switched: bool


def prepare_model(
    cfg: Config,
    checkpoint: str | Path,
    *,
    input_size: Sequence[int] | None,
    batch_size: int | None,
    dynamic_size: bool,
    precision: str,
    with_preprocess: bool,
    softmax: bool,
    ema: bool,
) -> PreparedModel:
    """Read a checkpoint, switch it to deploy form, and describe the file.

    Args:
        cfg: The train config or its deploy twin.
        checkpoint: Weights of the classifier, in either form.
        input_size: Height and width of the images in pixels; None for those of the config's test pipeline.
        batch_size: Number of images that the file takes; None for any number.
        dynamic_size: Whether the file takes images of any height and width.
        precision: ``'fp32'``, ``'fp16'``, ``'bf16'`` or ``'int8'``.
        with_preprocess: Whether the change to RGB and the normalisation are in the file.
        softmax: Whether the file gives probabilities instead of logits.
        ema: Whether the averaged weights are taken.

    Raises:
        CheckpointError: If the checkpoint can't be read, or does not fit.
        ValueError: If the classifier gives an image several labels.
        ExportError: If the model is no classifier on a RepVGG.
    """
    require_single_label(cfg)
    weights = read_weights(checkpoint, ema)
    loaded = load_model(cfg, weights)
    model, switched = loaded.model, switch(loaded.model)
    warn_of_branches(switched.report)
    metadata = _describe(
        cfg,
        model,
        weights,
        input_size=tuple(input_size) if input_size is not None else find_input_size(cfg),
        batch_size=batch_size,
        dynamic_size=dynamic_size,
        precision=precision,
        with_preprocess=with_preprocess,
        softmax=softmax,
    )
    return PreparedModel(model, switched.model, metadata, not loaded.is_deploy_form)


def normalise(model: Any, images: Tensor) -> Tensor:
    """Give uint8 images ``(N, C, H, W)`` to the data preprocessor of a classifier."""
    return model.data_preprocessor(dict(inputs=images))['inputs']


def _describe(cfg: Config, model: Any, checkpoint: Checkpoint, **settings: Any) -> ExportMetadata:
    if not isinstance(model, BaseClassifier):
        raise ExportError(f'the model must be a classifier of mmpretrain, got {type(model).__name__}')
    channels = get_in_channels(model)
    with torch.no_grad():
        logits = model(torch.zeros(1, channels, *settings['input_size']))
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ExportError('the model must give a score for each class, and has no head that does')
    preprocessor = model.data_preprocessor
    if settings['with_preprocess'] and getattr(preprocessor, 'pad_size_divisor', 1) > 1:
        raise ExportError(
            f'pad_size_divisor of the data preprocessor must be 1 for preprocessing in the file, got '
            f'{preprocessor.pad_size_divisor}; leave out `with_preprocess`'
        )
    has_mean = getattr(preprocessor, '_enable_normalize', False)
    return ExportMetadata(
        arch=_name_arch(cfg.model),
        classes=_find_classes(cfg, checkpoint, logits.shape[1]),
        num_classes=logits.shape[1],
        channels=channels,
        mean=tuple(preprocessor.mean.flatten().tolist()) if has_mean else (),
        std=tuple(preprocessor.std.flatten().tolist()) if has_mean else (),
        to_rgb=bool(getattr(preprocessor, 'to_rgb', False)) and channels == 3,
        source_sha256=hash_file(checkpoint.path),
        version=__version__,
        pipeline=_find_pipeline(cfg),
        **settings,
    )


def _name_arch(model_cfg: Mapping[str, Any]) -> str:
    """The preset's name or the arch dict of a RepVGG; the name of a model of timm; or the type of another backbone."""
    if 'model_name' in model_cfg:
        return f'timm:{model_cfg["model_name"]}'
    backbone = model_cfg.get('backbone') or model_cfg
    arch = backbone.get('arch')
    if get_type_name(backbone['type']) != 'RepVGG':
        return ' '.join(filter(None, (get_type_name(backbone['type']), arch and str(arch))))
    return arch if isinstance(arch, str) else json.dumps(arch)


def _find_classes(cfg: Config, checkpoint: Checkpoint, num_classes: int) -> tuple[str, ...]:
    """The names in the checkpoint; or those that the config gives the data; or those of its class, as ImageNet's."""
    names = get_trained_classes(checkpoint.meta)
    if names:
        # a head may have more classes than were trained
        return (*names[:num_classes], *map(str, range(len(names), num_classes)))
    settings = next(iterate_datasets(get_dataset(cfg, 'test')))
    dataset = settings['type']
    if isinstance(dataset, str):
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            dataset = DATASETS.get(dataset)
    names = (settings.get('metainfo') or getattr(dataset, 'METAINFO', None) or {}).get('classes') or ()
    return tuple(map(str, names)) if len(names) == num_classes else ()


def _find_pipeline(cfg: Config) -> Pipeline:
    """The test pipeline as plain data; empty if the config has none, or one that is not plain."""
    try:
        return describe_pipeline(get_test_pipeline(cfg))
    except (KeyError, ValueError):  # the data set has no pipeline, or there is no test data
        return ()

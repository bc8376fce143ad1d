"""The models of mmpretrain's hub as configs."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmpretrain.apis import ModelHub, list_models

from ..data.wrappers import get_test_pipeline
from .addresses import download_address


def list_names(name: str) -> Collection[str]:
    """The names of mmpretrain's classifiers."""
    return list_models(task='Image Classification')


def make_config(name: str, shapes: Mapping[str, tuple[int, ...]], num_classes: int | None) -> dict[str, Any]:
    """The parts of a config: model, data preprocessor, test pipeline.

    Args:
        name: Name of the model.
        shapes: Shapes of the weights by their keys, which tell the number of classes; may be empty.
        num_classes: Number of classes, if it is known.
    """
    cfg = ModelHub.get(name).config
    model, preprocessor = cfg.model.to_dict(), cfg.get('data_preprocessor', {})
    if num_classes is None:
        heads = [shape[0] for key, shape in shapes.items() if key.startswith('head.') and len(shape) == 2]
        num_classes = heads[-1] if heads else model['head']['num_classes']
    if num_classes != model['head']['num_classes']:
        model['head']['num_classes'] = num_classes
    return dict(
        model=model,
        data_preprocessor=dict(preprocessor, num_classes=num_classes),
        pipeline=get_test_pipeline(cfg),
        num_classes=num_classes,
    )


def download(name: str) -> Path:
    """The file of mmpretrain's weights in torch's cache. It is downloaded if it is not there.

    Raises:
        ValueError: If mmpretrain has no weights for this model.
        CheckpointError: If they can't be downloaded.
    """
    address = ModelHub.get(name).weights
    if not address:
        raise ValueError(f'mmpretrain has no weights for {name}; give a file of them with `checkpoint`')
    return download_address(address)

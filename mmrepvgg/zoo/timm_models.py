"""The models of timm as configs: networks, and how timm reads images for them."""

import math
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.errors import CheckpointError
from ..checkpoints.writing import replacing
from ..runtimes.format import require_packages

# How timm cuts the square that the network gets out of an image, and the steps that make it so.
_RESIZING = {
    'center': lambda size: dict(type='mmrepvgg.ResizeEdge', scale=size, edge='short'),
    'squash': lambda size: dict(type='Resize', scale=(size, size)),
}


def list_names(name: str) -> Collection[str]:
    """The names of timm's models. Those of weights, such as ``mobileone_s0.apple_in1k``, count if ``name`` is one.

    Raises:
        MissingPackageError: If timm is not installed.
    """
    timm = _import_timm()
    return timm.list_pretrained() if '.' in name else timm.list_models()


def make_config(name: str, shapes: Mapping[str, tuple[int, ...]], num_classes: int | None) -> dict[str, Any]:
    """The parts of a config: model, data preprocessor, test pipeline.

    Args:
        name: Name of the model.
        shapes: Shapes of the weights by their keys, which tell the number of classes; may be empty.
        num_classes: Number of classes, if it is known.

    Raises:
        CheckpointError: If the weights are in timm's own deploy form.
        ValueError: If the model has no classes, or timm reads images for it in a way that no step of a pipeline does.
    """
    timm = _import_timm()
    offered = timm.get_pretrained_cfg(name)
    if fused := [key for key in shapes if 'reparam_conv.' in key]:
        raise CheckpointError(
            f'the checkpoint was switched by timm itself (it has {fused[0]}), and the model is built in train form; '
            'give its weights in train form'
        )
    if num_classes is None:
        num_classes = _count_classes(offered.classifier, shapes) or offered.num_classes
    settings = import_module('timm.data').resolve_data_config({}, pretrained_cfg=offered.to_dict())
    _, height, width = settings['input_size']
    mode, crop_pct = settings['crop_mode'], settings['crop_pct']
    if mode not in _RESIZING or height != width:
        raise ValueError(
            f'timm reads images for {name} with the size {height} x {width} and the crop mode {mode!r}, and the size '
            f'must be square and the mode one of {", ".join(_RESIZING)}; write a config with a test pipeline of its own'
        )
    if not num_classes:
        raise ValueError(f'the model must be a classifier, and {name} of timm gives features; take one with classes')
    resizing = _RESIZING[mode](math.floor(height / crop_pct))
    return dict(
        model=dict(type='mmpretrain.TimmClassifier', model_name=name, num_classes=num_classes, pretrained=False),
        data_preprocessor=dict(
            num_classes=num_classes,
            mean=[255 * value for value in settings['mean']],
            std=[255 * value for value in settings['std']],
            to_rgb=True,
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(resizing, backend='pillow', interpolation=settings['interpolation']),
            dict(type='CenterCrop', crop_size=height),
            dict(type='PackInputs'),
        ],
        num_classes=num_classes,
    )


def download(name: str) -> Path:
    """The file of timm's weights in torch's cache. It is written there if it is not.

    Raises:
        ValueError: If timm has no weights for this model.
        CheckpointError: If they can't be downloaded.
    """
    timm = _import_timm()
    offered = timm.get_pretrained_cfg(name)
    if not offered.has_weights:
        raise ValueError(f'timm has no weights for {name}; give a file of them with `checkpoint`')
    path = Path(torch.hub.get_dir(), 'checkpoints', f'timm-{offered.architecture}.{offered.tag}.pth')
    if not path.is_file():
        try:
            model = timm.create_model(name, pretrained=True)
        except Exception as error:  # of timm's hub, of its libraries, of the network
            raise CheckpointError(
                f"timm's weights for {name} could not be downloaded ({type(error).__name__}: {error}); give a file of "
                'them with `checkpoint`'
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            torch.save(model.state_dict(), temporary)
    return path


def _count_classes(classifier: str | tuple[str, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The outputs of the last layer; of a distilled model the first one of its layers tells it."""
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    found = (shapes[f'{name}.weight'][0] for name in names if shapes.get(f'{name}.weight'))
    return next(found, None)


def _import_timm() -> Any:
    require_packages('models of timm', ['timm'], 'timm')
    return import_module('timm')

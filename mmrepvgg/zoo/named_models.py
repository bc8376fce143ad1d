"""Configs of other projects' models, by names such as ``timm:mobileone_s0``. Imports no torch."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

# The systems, and their modules. A module has `make_config`, `list_names` and `download`.
SYSTEMS = {'timm': 'timm_models', 'mmpretrain': 'mmpretrain_models'}


def split_model_name(model: str) -> tuple[str, str]:
    """The system and the name of a model.

    Raises:
        ValueError: If the system is unknown.
    """
    system, _, name = model.partition(':')
    if system not in SYSTEMS or not name:
        raise ValueError(
            f'`model` must be SYSTEM:NAME with a system of {", ".join(SYSTEMS)}, for example timm:mobileone_s0, got '
            f'{model!r}'
        )
    return system, name


def load_model_config(
    model: str,
    *,
    checkpoint: str | Path | None = None,
    data: str | Path | None = None,
    options: Iterable[str] = (),
) -> 'Config':
    """Make the config of a model of timm or mmpretrain: network, normalisation, and the pipeline that reads images.

    Everything here that takes a config takes it. Both forms of the model have this config.

    Args:
        model: System and name, for example ``'timm:mobileone_s0'`` or ``'mmpretrain:mobileone-s0_8xb32_in1k'``.
        checkpoint: Weights in either form, or an exported file. They tell the number of classes. Default: that of the
            weights that the system offers.
        data: Folder of images, with or without class folders, or with ``train`` and ``val``: images for calibration and
            test. Default: there are none.
        options: Settings to change, in mmengine's syntax.

    Raises:
        ValueError: If there is no such system or model, or if timm reads its images in a way that no pipeline has.
        MissingPackageError: If timm is not installed.
        CheckpointError: If the checkpoint can't be read.
    """
    module, name = _find_module(model)
    from ..checkpoints.formats import read_weights
    from ..runtimes.loading import load_exported
    from ..runtimes.table import is_exported

    keys, num_classes = {}, None
    if checkpoint is not None and is_exported(checkpoint):
        num_classes = load_exported(checkpoint).metadata.num_classes
    elif checkpoint is not None:
        keys = {key: tuple(value.shape) for key, value in read_weights(checkpoint).state_dict.items()}
    parts = module.make_config(name, keys, num_classes)
    from .model_data import join_config

    return join_config(model, parts, None if data is None else Path(data), options)


def download_weights(model: str) -> Path:
    """The file of the weights that a system offers for its model. It is downloaded once, into torch's cache.

    Raises:
        ValueError: If there is no such model, or there are no weights for it.
        CheckpointError: If they can't be downloaded.
    """
    module, name = _find_module(model)
    return module.download(name)


def _find_module(model: str) -> tuple[Any, str]:
    from .. import mmcv_installed  # noqa: F401

    system, name = split_model_name(model)
    module: Any = import_module(f'{__package__}.{SYSTEMS[system]}')
    names = module.list_names(name)
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=5, cutoff=0.5)
        hint = f'; did you mean {", ".join(f"{system}:{each}" for each in near)}?' if near else ''
        raise ValueError(f'{system} has no model {name!r}{hint}')
    return module, name

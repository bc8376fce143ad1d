"""The config of a model file: what an exported file or a checkpoint carries, read as data. Nothing in it is run."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..checkpoints.loading import check_weights
from ..checkpoints.reading import Checkpoint, read_checkpoint
from ..data.plain_pipelines import Pipeline, describe_pipeline, make_pipeline
from ..data.wrappers import get_test_pipeline
from ..models.building import build_model
from ..models.plain_configs import drop_training, find_unknown
from ..runtimes.metadata import ExportMetadata

_ENTRIES = ('model', 'data_preprocessor', 'test_dataloader', 'default_scope')
# Settings of a data preprocessor that have an effect on inference.
_NORMALISATION = ('mean', 'std', 'to_rgb', 'num_classes')


class NoConfigError(ValueError):
    """A file does not say how it is to be used. The message says what to add."""


def make_exported_config(metadata: ExportMetadata, path: Path) -> Config:
    """The config of an exported file, from its description.

    Raises:
        NoConfigError: If the file does not say how images are read.
    """
    return _join(dict(head=dict(num_classes=metadata.num_classes)), require_pipeline(metadata, path))


def require_pipeline(metadata: ExportMetadata, path: Path) -> Pipeline:
    """The test pipeline of an exported file, from its description.

    Raises:
        NoConfigError: If the file does not say how images are read.
    """
    if not metadata.pipeline:
        raise NoConfigError(
            f'{path} does not say how images are resized and cropped for it: it was exported by an earlier version, or '
            'from a test pipeline with steps of its own; add `config`'
        )
    return metadata.pipeline


def read_carried_config(path: Path) -> Config:
    """The config that a training wrote into its checkpoint.

    Raises:
        CheckpointError: If the checkpoint can't be read, or does not fit its config.
        NoConfigError: If it has no config, or one with types that a file may not name.
    """
    checkpoint = read_checkpoint(path)
    entries = _parse(checkpoint.meta.get('cfg'))
    if not isinstance(entries.get('model'), Mapping) or not isinstance(entries.get('test_dataloader'), Mapping):
        raise NoConfigError(
            f'{path} does not carry the config of its training (or carries one without model or test_dataloader); add '
            '`config`'
        )
    model = drop_training(entries['model'])
    preprocessor = entries['model'].get('data_preprocessor') or entries.get('data_preprocessor') or {}
    pipeline = _find_pipeline(entries)
    unknown = find_unknown(model)
    if unknown or not pipeline or not isinstance(preprocessor, Mapping):
        found = ', '.join(unknown) if unknown else 'in its test pipeline or its normalisation'
        raise NoConfigError(
            f'{path} carries a config with parts that are not taken from a file ({found}), since whoever made it could '
            'name any program there; add `config`, which you trust'
        )
    model['data_preprocessor'] = {key: preprocessor[key] for key in _NORMALISATION if key in preprocessor}
    cfg = _join(model, pipeline)
    _require_fit(cfg, checkpoint)
    return cfg


def _join(model: Mapping[str, Any], pipeline: Pipeline) -> Config:
    dataset = dict(type='CustomDataset', pipeline=make_pipeline(pipeline))
    return Config(
        dict(model=dict(model), test_dataloader=dict(dataset=dataset), default_scope='mmpretrain'),
    )


def _find_pipeline(entries: Mapping[str, Any]) -> Pipeline:
    try:
        return describe_pipeline(get_test_pipeline(entries))
    except (ValueError, TypeError, KeyError, AttributeError):  # a file may say anything
        return ()


def _require_fit(cfg: Config, checkpoint: Checkpoint) -> None:
    """Refuse a config that does not describe the weights, before memory is taken: it may name layers of any width."""
    arch = cfg.model.get('backbone', {}).get('arch')
    if isinstance(arch, Mapping) and sum(arch.get('num_blocks', ())) > len(checkpoint.state_dict):
        raise NoConfigError(f'{checkpoint.path} carries a config of more blocks than it has weights; add `config`')
    with torch.device('meta'):
        model = build_model(cfg, deploy=checkpoint.is_deploy_form)
    check_weights(model, checkpoint)


def _parse(text: Any) -> dict[str, Any]:
    """The entries of a config, as mmengine writes its text: assignments of plain values. What is another is left out.

    Running the text, as mmengine does, would run whatever somebody wrote there.
    """
    entries: dict[str, Any] = {}
    try:
        statements = ast.parse(text if isinstance(text, str) else '').body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in _ENTRIES:
                try:
                    entries[name] = _evaluate(value)
                except (ValueError, TypeError, RecursionError):
                    continue
    return entries


def _evaluate(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            return {str(each.arg): _evaluate(each.value) for each in keywords}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {ast.literal_eval(key): _evaluate(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.List(elts=elements):
            return [_evaluate(each) for each in elements]
        case ast.Tuple(elts=elements):
            return tuple(_evaluate(each) for each in elements)
    return ast.literal_eval(node)

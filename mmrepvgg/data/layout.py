"""Check that a config's data is where the config says, before anything expensive starts. Imports no torch."""

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from ..models.config_types import get_type_name, is_timm_classifier
from .folders import list_class_folders
from .shard_index import ShardError, read_index
from .wrappers import iterate_datasets

# The parts of a config's data that samples may come from.
SPLITS = ('train', 'test')
_CHECKED = ('ImageNet', 'CustomDataset', 'ShardedImages')


class DataError(ValueError):
    """Data that is not where the config says, or does not fit its model."""


def check_data(cfg: Mapping[str, Any], dataloaders: Iterable[str]) -> None:
    """Check the images of ``cfg``'s dataloaders. Only data sets with ImageNet's layout, and shards, are checked.

    Args:
        cfg: The config.
        dataloaders: Names of the dataloaders: ``'train_dataloader'``, ``'val_dataloader'``, ``'test_dataloader'``.

    Raises:
        DataError: If a folder is missing or empty, if a shard is missing or damaged, if training and validation folders
            have different classes, or if a line in a list of images lacks a label of the model.
    """
    num_classes = get_num_classes(cfg)
    classes: dict[str, set[str]] = {}
    for name in dataloaders:
        if cfg.get(name) is None:
            continue
        for dataset in iterate_datasets(cfg[name]['dataset']):
            folder = _get_image_folder(dataset)
            if folder is None:
                continue
            if get_type_name(dataset.get('type')) == 'ShardedImages':
                if found := _list_sharded_classes(folder, name):
                    classes[folder] = found
                continue
            has_labels = dataset.get('with_label', True) and dataset.get('split') != 'test'
            annotations = _get_annotation_file(dataset)
            if annotations is not None:
                _check_annotations(annotations, name, has_labels, num_classes)
            elif found := _list_classes(folder, name, has_labels):
                classes[folder] = found
    folders = list(classes)
    for folder in folders[1:]:
        if different := sorted(classes[folders[0]] ^ classes[folder]):
            raise DataError(
                f'{folders[0]} and {folder} must have the same class folders, or the labels would not match; '
                f'{len(different)} are only in one of them: {", ".join(different[:5])}'
            )


def has_class_folders(cfg: Mapping[str, Any]) -> bool:
    """Whether the test images are in a class folder for each class of the model. Warns if there are others."""
    dataset, num_classes = cfg['test_dataloader']['dataset'], get_num_classes(cfg)
    folder = _get_image_folder(dataset)
    num_folders = len(list_class_folders(folder)) if folder and os.path.isdir(folder) else 0
    if num_folders and num_folders != num_classes:
        warnings.warn(
            f'{folder} has {num_folders} class folders and the model {num_classes} classes: its images are taken '
            'without labels',
            stacklevel=1,
        )
    return num_folders == num_classes


def get_num_classes(cfg: Mapping[str, Any]) -> int | None:
    """Number of classes of a config's classifier. None if the config does not say it, or has no classifier."""
    model = cfg.get('model') or {}
    head = model if is_timm_classifier(model) else model.get('head')
    return head.get('num_classes') if isinstance(head, Mapping) else None


def _get_image_folder(dataset: Mapping[str, Any]) -> str | None:
    root, prefix = dataset.get('data_root', ''), dataset.get('data_prefix') or dataset.get('split', '')
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path', '')
    if get_type_name(dataset.get('type')) not in _CHECKED or '://' in str(root):
        return None
    return os.path.join(root, prefix) if prefix else root


def _get_annotation_file(dataset: Mapping[str, Any]) -> str | None:
    """The list of labels, or None if the folders are the labels. mmpretrain's ImageNet follows the same rule."""
    root = dataset.get('data_root', '')
    if dataset.get('ann_file'):
        return os.path.join(root, dataset['ann_file'])
    meta = os.path.join(root, 'meta', f'{dataset.get("split", "")}.txt')
    return meta if os.path.exists(meta) else None


def _check_annotations(path: str, dataloader: str, has_labels: bool, num_classes: int | None) -> None:
    """Check a list as mmpretrain reads it: the text behind the last blank of a line is the label."""
    form = '"<image> <label>"' if has_labels else '"<image>"'
    if not os.path.isfile(path):
        raise DataError(f'{dataloader}: {path} does not exist; it is the `ann_file`, one {form} a line')
    try:
        with open(path, encoding='utf-8') as file:
            number = 0
            for number, line in enumerate(file, 1):
                if reason := _find_fault(line, has_labels, num_classes):
                    raise DataError(f'{dataloader}: {path}, line {number}: {reason}; it must be {form}')
        if not number:
            raise DataError(f'{dataloader}: {path} is empty; it must have {form} in each line')
    except UnicodeDecodeError as error:
        raise DataError(f'{dataloader}: {path} must be a text in UTF-8: {error}') from error


def _find_fault(line: str, has_labels: bool, num_classes: int | None) -> str:
    if line.startswith('\ufeff'):
        return 'the file begins with a byte-order mark, which would become a part of the name; save the file without it'
    name, _, label = line.strip().rpartition(' ')
    if not label:
        return 'the line is empty'
    if not has_labels:
        return ''
    if not name or not label.isdecimal():
        return f'{line.strip()[:80]!r} has no label, a whole number from 0'
    if num_classes is not None and (len(label) > 9 or int(label) >= num_classes):
        return f'the label is {label[:20]}, and the model has the classes 0 to {num_classes - 1}'
    return ''


def _list_classes(folder: str, dataloader: str, has_labels: bool) -> set[str]:
    """The names of the class folders. Images without labels have none."""
    advice = (
        f'expected {folder}/{"<class>/" if has_labels else ""}<image>; put the data (or a link to it) there, or set '
        f'`{dataloader}.dataset.data_root=PATH`'
    )
    if 'digits' in folder:
        advice = f'write it with `prepare_digits`: {folder}/<class>/<image>.png'
    if not os.path.isdir(folder):
        raise DataError(f'{dataloader}: {folder} does not exist; {advice}')
    if not has_labels:
        return set()
    if not (classes := set(list_class_folders(folder))):
        raise DataError(f'{dataloader}: {folder} has no class folders; {advice}')
    return classes


def _list_sharded_classes(folder: str, dataloader: str) -> set[str]:
    """The class folders that the images in shards were in."""
    try:
        return set(read_index(folder).folders)
    except ShardError as error:
        raise DataError(f'{dataloader}: {error}') from error

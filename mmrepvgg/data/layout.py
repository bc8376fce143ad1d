"""Checking that a config's data is where it says, before anything expensive starts.

Reads the config only: torch is not imported.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Where samples may come from.
SPLITS = ('train', 'test')


class DataError(ValueError):
    """Data that is not where, or not as, a config says."""


def check_data(cfg: Mapping[str, Any], dataloaders: Iterable[str]) -> None:
    """Check the image folders of ``cfg``'s dataloaders. Data sets of other layouts than ImageNet's are let pass.

    Args:
        cfg: The config.
        dataloaders: Which to check: ``'train_dataloader'``, ``'val_dataloader'``, ``'test_dataloader'``.

    Raises:
        DataError: If a folder is missing or empty, or training and validation folders have different classes.
    """
    classes: dict[str, set[str]] = {}
    for name in dataloaders:
        if cfg.get(name) is None:
            continue
        dataset = cfg[name]['dataset']
        while 'dataset' in dataset:  # RepeatDataset and its like
            dataset = dataset['dataset']
        folder = _get_image_folder(dataset)
        if folder is None:
            continue
        annotations = _get_annotation_file(dataset)
        if annotations is None:
            classes[folder] = _list_classes(folder, name)
        elif not os.path.isfile(annotations):
            raise DataError(f'{name}: {annotations} does not exist; it is the ann_file, one "<image> <label>" a line')
    folders = list(classes)
    for folder in folders[1:]:
        if different := sorted(classes[folders[0]] ^ classes[folder]):
            raise DataError(
                f'{folders[0]} and {folder} must have the same class folders, or the labels would not match; '
                f'{len(different)} are in one only: {", ".join(different[:5])}'
            )


def _get_image_folder(dataset: Mapping[str, Any]) -> str | None:
    root, prefix = dataset.get('data_root', ''), dataset.get('data_prefix') or dataset.get('split', '')
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path', '')
    if str(dataset.get('type', '')).split('.')[-1] not in ('ImageNet', 'CustomDataset') or '://' in str(root):
        return None
    return os.path.join(root, prefix)


def _get_annotation_file(dataset: Mapping[str, Any]) -> str | None:
    """The list of labels, or None where the folders are the labels; mmpretrain's ImageNet decides it so, too."""
    root = dataset.get('data_root', '')
    if dataset.get('ann_file'):
        return os.path.join(root, dataset['ann_file'])
    meta = os.path.join(root, 'meta', f'{dataset.get("split", "")}.txt')
    return meta if os.path.exists(meta) else None


def _list_classes(folder: str, dataloader: str) -> set[str]:
    advice = (
        f'expected {folder}/<class>/<image>; put the data (or a link to it) there, or name another place with '
        f'--cfg-options {dataloader}.dataset.data_root=PATH'
    )
    if 'digits' in folder:
        advice = f'run: python tools/prepare_digits.py (it writes {folder}/<class>/<image>.png)'
    if not os.path.isdir(folder):
        raise DataError(f'{dataloader}: {folder} does not exist; {advice}')
    with os.scandir(folder) as entries:
        classes = {entry.name for entry in entries if entry.is_dir()}
    if not classes:
        raise DataError(f'{dataloader}: {folder} has no class folders; {advice}')
    return classes


def check_classes(dataset: Any, num_classes: int, trained: Sequence[str] | None = None) -> None:
    """Check that a data set's labels can be those of a model.

    Folders are numbered in their order: where one is missing or added, the labels behind it are of other classes.

    Args:
        dataset: Built; one that names no classes is let pass.
        num_classes: That the model has.
        trained: Names of those it was trained on, if they are known.

    Raises:
        DataError: If the numbers differ, and the data set's classes are not the first of the training's (a head may
            have more classes than were trained).
    """
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not names or len(names) == num_classes or list(names) == list(trained or ())[: len(names)]:
        return
    shown = ', '.join(map(str, names[:3]))
    raise DataError(
        f'the test data has {len(names)} classes ({shown}, ...) and the model {num_classes}: class folders are '
        "numbered in their order, so these labels are not the model's; point the config to data with a folder for "
        "each of the model's classes (an empty one will do)"
    )

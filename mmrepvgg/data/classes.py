"""The classes of a data set compared with those of a model: their number, their names, their order.

Class folders are numbered in the order of their names, empty ones too. If a folder is missing or added, all
folders behind it have the labels of other classes, and the accuracy is wrong without an error.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.registry import MODELS

from .layout import DataError, get_num_classes

_NUMBERING = 'class folders are numbered in the order of their names, empty ones too'


def get_trained_classes(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in a checkpoint's ``meta``, or an empty tuple. mmcls 0.x wrote them as ``CLASSES``."""
    dataset_meta = meta.get('dataset_meta')
    names = (dataset_meta.get('classes') if isinstance(dataset_meta, Mapping) else None) or meta.get('CLASSES')
    # a file may have anything there
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def require_single_label(cfg: Config) -> None:
    """Refuse a classifier that gives an image several labels.

    Raises:
        ValueError: If the config's head is for several labels.
    """
    head_type = ((cfg.get('model') or {}).get('head') or {}).get('type')
    head = MODELS.get(head_type) if isinstance(head_type, str) else head_type
    if isinstance(head, type) and issubclass(head, MultiLabelClsHead):
        raise ValueError(
            f'the model must give an image one label, and a {head.__name__} gives several; test it with `evaluate`, '
            "without `metrics` and `out`, by the config's own test_evaluator"
        )


def check_config_classes(cfg: Config, dataset: Any, trained: Sequence[str] = ()) -> None:
    """Check a data set with :func:`check_classes` for the model of a config, which must give an image one label."""
    require_single_label(cfg)
    num_classes = get_num_classes(cfg)
    if num_classes is not None:
        check_classes(dataset, num_classes, trained)


def check_classes(dataset: Any, num_classes: int, trained: Sequence[str] | None = None) -> None:
    """Check that the labels of test data are those of a model.

    The data may lack the last classes of the model, if their names are known: the labels are right then. If data and
    model have no name in common (identifiers and words, or two languages), the names are not compared; that is logged.

    Args:
        dataset: Built data set. If it names no classes, it is not checked.
        num_classes: Number of classes of the model.
        trained: Names of the classes that the model was trained on, if they are known.

    Raises:
        DataError: If the data has more, fewer or other classes than the model, or the same in another order.
    """
    trained = tuple(trained or ())
    _check_folders(dataset)
    names = get_names(dataset)
    if not names:
        return
    if len(names) != num_classes and (len(names) > num_classes or names != trained[: len(names)]):
        raise DataError(
            f'the test data has {len(names)} classes ({", ".join(names[:3])}, ...) and the model {num_classes}: '
            f"{_NUMBERING}, so the labels are not those of the model; give data with a folder for each of the model's "
            'classes (it may be empty)'
        )
    known = [some for some in (names, *map(get_folders, iterate_parts(dataset))) if some]
    if not trained or any(_are_same(some, trained) for some in known):
        return
    if overlapping := [some for some in known if set(some) & set(trained)]:
        raise DataError(
            'the test data has other classes than those that the model was trained on: '
            f'{_describe_difference(overlapping[0], trained, ("in the data", "in the model"))}; {_NUMBERING}. Give '
            'data with the folders of the training data'
        )
    print_log(
        f'the test data and the model have no name of a class in common ({", ".join(names[:3])}, ... and '
        f'{", ".join(trained[:3])}, ...): the classes are taken for the same, under two names each',
        'current',
        level=logging.WARNING,
    )


def check_training_classes(dataset: Any, num_classes: int) -> None:
    """Check that a model has a class for each label of training data. Fewer labels than classes are only logged.

    Raises:
        DataError: If the data has more classes than the model, or if its metainfo names the folders in another order.
    """
    _check_folders(dataset)
    names = get_names(dataset)
    if not names or len(names) == num_classes:
        return
    message = (
        f'the training data has {len(names)} classes ({", ".join(names[:3])}, ...) and the model {num_classes}: '
        f'{_NUMBERING}; set `model.head.num_classes={len(names)}`, or give other data'
    )
    if len(names) > num_classes:
        raise DataError(message)
    print_log(message, 'current', level=logging.WARNING)


def require_labels(dataset: Any, split: str) -> None:
    """Refuse a data set that says that its images have no labels.

    Raises:
        DataError: If it has ``with_label=False``.
    """
    for part in iterate_parts(dataset):
        if getattr(part, 'with_label', True) is False:
            advice = '; `Predictor` predicts images without labels' if split == 'test' else ''
            raise DataError(
                f'the {split} images need labels, and with_label=False of the {split}_dataloader says that they have '
                f'none{advice}'
            )


def _check_folders(dataset: Any) -> None:
    """Check that ``metainfo`` names folders in their order: folders 1, 10, 2 must not have the names 1, 2, 10."""
    for part in iterate_parts(dataset):
        names, folders = get_names(part), get_folders(part)
        # names that no folder has are descriptions, as those of ImageNet
        if names != folders and set(names) & set(folders):
            raise DataError(
                f'the classes that the config names are not the folders of {part.img_prefix}: '
                f'{_describe_difference(folders, names, ("by its folder", "in the config"))}; {_NUMBERING}. Leave '
                'out metainfo=dict(classes=[...]) of the data set, or give the names in the order of the folders'
            )


def iterate_parts(dataset: Any) -> Iterator[Any]:
    """The data sets that read images: those in a wrapper, or ``dataset`` itself."""
    inner = getattr(dataset, 'datasets', None) or ([dataset.dataset] if hasattr(dataset, 'dataset') else [])
    if not inner:
        yield dataset
    for part in inner:
        yield from iterate_parts(part)


def get_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes of a data set, or an empty tuple."""
    return tuple(map(str, (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()))


def get_folders(dataset: Any) -> tuple[str, ...]:
    """The folders of the classes in their order. A data set whose labels come from a list has none."""
    return tuple(getattr(dataset, 'folder_to_idx', ()))


def _are_same(names: Sequence[str], trained: Sequence[str]) -> bool:
    """Whether ``trained`` begins with ``names``. Of ImageNet-1k's lists of synonyms only the first ones count."""
    if len(names) == len(trained) == len(IMAGENET_CATEGORIES):
        names, trained = ([name.split(',')[0] for name in some] for some in (names, trained))
    return tuple(names) == tuple(trained[: len(names)])


def _describe_difference(first: Sequence[str], second: Sequence[str], where: tuple[str, str]) -> str:
    pairs = enumerate(zip(first, second, strict=False))
    told = [f'class {i} is {a!r} {where[0]} and {b!r} {where[1]}' for i, (a, b) in pairs if a != b][:1]
    for names, others, place in ((first, second, where[0]), (second, first, where[1])):
        if alone := [name for name in names if name not in others]:
            told.append(f'only {place}: {", ".join(alone[:5])}{", ..." if len(alone) > 5 else ""}')
    return '; '.join(told if len(told) > 1 else [*told, 'the same names in another order'])

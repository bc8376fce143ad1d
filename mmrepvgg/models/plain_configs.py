"""Configs of models as plain data, which files can carry: only types that are known. Imports no torch.

A registry imports and builds every type that it is given, and anybody can write a type into a file.
"""

import copy
from collections.abc import Iterator
from typing import Any

# Types that a file may use, and settings that have no effect on inference.
KNOWN_TYPES = {
    *('ImageClassifier', 'RepVGG', 'GlobalAveragePooling', 'LinearClsHead', 'AuxiliaryClsHead'),
    *('BN', 'BN2d', 'SyncBN', 'MMSyncBN', 'Conv2d', 'ReLU', 'ReLU6', 'SiLU', 'Swish', 'HSwish', 'GELU', 'LeakyReLU'),
    *('Sigmoid', 'HSigmoid'),
}
_TRAINING_ONLY = ('init_cfg', 'loss', 'train_cfg', 'data_preprocessor', 'pretrained', 'aux_loss_weight')


def find_unknown(node: Any) -> list[str]:
    """The types in a config that are not in ``KNOWN_TYPES``, and the keys that a registry interprets."""
    return sorted(set(_iterate_unknown(node)))


def _iterate_unknown(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'type':
                name = str(value).removeprefix('mmrepvgg.').removeprefix('mmpretrain.')
                if name not in KNOWN_TYPES:
                    yield name
            elif str(key).startswith('_') or key in _TRAINING_ONLY:
                yield str(key)
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _iterate_unknown(value)


def drop_training(node: Any) -> Any:
    """A copy of a config without the settings that have no effect on inference."""
    if isinstance(node, dict):
        return {key: drop_training(value) for key, value in node.items() if key not in _TRAINING_ONLY}
    return [drop_training(value) for value in node] if isinstance(node, list | tuple) else copy.copy(node)

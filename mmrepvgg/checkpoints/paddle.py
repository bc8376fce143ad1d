"""Paddle's ``.pdparams``: a pickle of a dict of numpy arrays."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .numpy_stand_ins import PlainArray
from .plain_pickles import PlainUnpickler
from .reading import as_checkpoint_errors, require_dict


def read_paddle(path: Path) -> dict[Any, Any]:
    """Read a file that ``paddle.save`` wrote from a state dict.

    Returns:
        Its dict, with tensors in place of the arrays.

    Raises:
        CheckpointError: If it is damaged, or holds anything but a dict of numeric arrays and plain data.
    """
    with path.open('rb') as file, as_checkpoint_errors(path):
        content = PlainUnpickler({}, path.stat().st_size).load(file)
        require_dict(path, content)
        return {
            key: _to_tensor(value) if isinstance(value, PlainArray) and not value.is_inert else value
            for key, value in content.items()
        }


def _to_tensor(array: PlainArray) -> Tensor:
    if array.dtype == 'u2':
        raise ValueError('it has arrays of uint16, in which Paddle keeps bfloat16; save it as float32')
    return torch.from_numpy(array)

"""The models of the study: their checkpoints and their names. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmrepvgg.commands.files import require_file

# Of a folder that tools/quantization_study.py wrote.
_RECORD = 'trained.json'


@dataclass(frozen=True)
class Model:
    """A model: its name in the table, and its checkpoint."""

    name: str
    checkpoint: Path


def list_models(paths: Sequence[Path]) -> list[Model]:
    """List the models of checkpoints, and of folders that ``tools/quantization_study.py`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If two models have the same name.
    """
    models = []
    for path in paths:
        if path.is_dir():
            require_file(path / _RECORD)
            checkpoint = path / json.loads((path / _RECORD).read_text())['checkpoint']
        else:
            checkpoint = path
        require_file(checkpoint)
        models.append(Model(path.stem, checkpoint))
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f'the names of the files must differ, got {", ".join(names)}')
    return models

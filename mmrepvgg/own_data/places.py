"""The names of the files that a project consists of. Imports no torch."""

import os
import re
import shlex
from pathlib import Path

from ..checkpoints.writing import require_writable


class Places:
    """The files beside a config.

    Args:
        config: The config.

    Attributes:
        lists: The folder of its lists, which is written if lists are needed.
        weights: The converted checkpoint to start with, which is written if the given one must be converted.
    """

    def __init__(self, config: Path):
        self.config = config
        self.lists = config.with_name(f'{config.stem}_lists')
        self.weights = config.with_name(f'{config.stem}_start.pth')

    def require_free(self) -> None:
        """Check that the files can be written, and are not there.

        Raises:
            FileExistsError: If one exists.
            PermissionError: If none can be written there.
            ValueError: If the name of the config does not do.
        """
        if self.config.suffix != '.py':
            raise ValueError(f'`out` must end in .py, got {str(self.config)!r}')
        if set("'\\\n{}") & set(os.path.abspath(self.config)):
            raise ValueError(f'`out` must have no quote, backslash, brace or new line in it, got {str(self.config)!r}')
        for path in (self.config, self.lists, self.weights):
            if os.path.lexists(path):
                raise FileExistsError(f'{path} exists; move it away, or give another name by `out`')
        require_writable(self.config)

    def list_commands(self, epochs: int) -> tuple[str, ...]:
        """What to call next in the same folder: the training, and the quantization of its last checkpoint."""
        stem = self.config.stem
        return (
            shlex.join(['mmrepvgg', 'train', str(self.config)]),
            shlex.join(
                ['mmrepvgg', 'quantize', str(self.config), f'work_dirs/{stem}/epoch_{epochs}.pth', f'{stem}_int8.onnx']
            ),
        )


def name_config(data: str | Path) -> Path:
    """The name of the config for a data set: that of its folder or file, in the current folder."""
    name = Path(os.path.abspath(data)).name
    name = name.rpartition('.')[0] if os.path.isfile(data) else name
    return Path((re.sub(r'\W+', '_', name).strip('_') or 'images') + '.py')

"""The running of ExecuTorch's programs."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.reading import CheckpointError
from .executorch_core import catching_log, silencing
from .executorch_files import read_program
from .format import ENTRY
from .metadata import ExportMetadata

with silencing():
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification


class Threads:
    """The threads of all programs of the process.

    To change their number destroys the threads that loaded methods hold. A method that runs after that ends the
    process, so it must be loaded again.

    Attributes:
        changes: Number of changes so far.
    """

    changes = 0

    @classmethod
    def set(cls, num_threads: int) -> None:
        with catching_log():
            if num_threads != portable_lib._threadpool_get_thread_count():
                portable_lib._unsafe_reset_threadpool(num_threads)
                cls.changes += 1


class Program:
    """A program that is ready to run.

    Its method is loaded again for another number of threads, and for another height and width: where a feature map had
    one pixel, XNNPACK sometimes gives the memory of two tensors to one, and keeps it so when the map grows.

    Args:
        path: A file that :func:`save_program` wrote.

    Attributes:
        metadata: Description of the file.

    Raises:
        CheckpointError: If the file is damaged.
        ValueError: If it was written by others.
    """

    def __init__(self, path: Path):
        self.path = path
        self._content = read_program(path)
        (text,) = self._load(ENTRY).execute([])
        self.metadata = ExportMetadata.from_json(text, path)
        self._method = self._load('forward')
        self._loaded_for: Any = Threads.changes, None
        self._largest = self._method.metadata.input_tensor_meta(0).sizes()

    def run(self, x: Tensor) -> Tensor:
        """Run the program on images ``(N, C, H, W)``, as many at a time as it takes."""
        if not len(x):
            return x.new_zeros(0, self.metadata.num_classes, dtype=torch.float32)
        parts = x.cpu().contiguous().split(self._count_images(x))
        state = Threads.changes, x.shape[2:]
        if self._loaded_for not in (state, (Threads.changes, None)):
            self._method = self._load('forward')
        self._loaded_for = state
        return torch.cat([self._method.execute([part])[0] for part in parts]).to(x.device)

    def _count_images(self, x: Tensor) -> int:
        """The largest number of images of this size at a time. What is planned is a number of pixels in all."""
        num_images = min(self._largest[0], math.prod(self._largest) // x[0].numel())
        if num_images < (self.metadata.batch_size or 1):
            limit = math.prod(self._largest[2:]) * (1 if self.metadata.batch_size else self._largest[0])
            raise ValueError(
                f'{self.path} takes images of at most {limit} pixels, got {tuple(x.shape[2:])}; export with a larger '
                '`input_size`'
            )
        return num_images

    def _load(self, name: str) -> Any:
        failure = None
        with catching_log() as lines:
            try:
                program = Runtime.get().load_program(self._content, verification=Verification.InternalConsistency)
                return program.load_method(name)
            except RuntimeError as error:
                failure = error
        raise CheckpointError(f'ExecuTorch can not load {self.path}: {"; ".join(lines[-3:]) or failure}') from failure

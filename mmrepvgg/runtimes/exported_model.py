"""An exported file as a module: whatever runs it behind one forward."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .metadata import ExportMetadata

# Normalised (or uint8) images of exactly one batch that the file takes -> its scores.
Run = Callable[[Tensor], Tensor]


class ExportedModel(nn.Module):
    """An exported file, ready to run.

    Attributes:
        metadata (ExportMetadata): What the file says about itself.
        computes_in (str): The precision in which it is computed here. OpenVINO stores float16 and computes in float32
            on CPUs, and takes float32 for bfloat16 where the CPU has no instructions for that.
    """

    def __init__(self, path: Path, run: Run, metadata: ExportMetadata, any_size: bool = False, computes_in: str = ''):
        super().__init__()
        self.path = path
        self.metadata = metadata
        self.computes_in = computes_in or metadata.precision
        self._run = run  # a module among them is registered, and moves with this one
        self._any_size = any_size
        self.training = False

    def train(self, mode: bool = True) -> 'ExportedModel':
        """Nothing to switch: a file was exported for inference, and torch.export's modules refuse to be asked."""
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Run the file.

        Args:
            x: ``(N, 3, H, W)``, any N: what a file of a fixed batch size lacks is padded, and cut off the result.
                Normalised float32; for a file with preprocessing inside the images as the pipeline gives them,
                uint8 values in any dtype.

        Returns:
            Logits ``(N, classes)``, float32; probabilities if ``metadata.softmax``.

        Raises:
            ValueError: If the shape is not the file's.
        """
        expected = (self.metadata.channels, *self.metadata.input_size)
        if x.ndim != 4 or (tuple(x.shape[1:]) != expected and not (self._any_size and x.shape[1] == expected[0])):
            raise ValueError(
                f'{self.path} takes images of the shape (N, {", ".join(map(str, expected))}), got {tuple(x.shape)}; '
                'use a config whose test pipeline gives that size, or export with this `input_size`'
            )
        x = x.to(torch.uint8 if self.metadata.with_preprocess else torch.float32)
        size = self.metadata.batch_size
        if size is None or len(x) == size:
            return self._run(x)
        if not len(x):
            return x.new_zeros(0, self.metadata.num_classes, dtype=torch.float32)
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % size))
        return torch.cat([self._run(chunk) for chunk in padded.split(size)])[: len(x)]


def set_torch_threads(num_threads: int | None) -> None:
    """For the formats that PyTorch itself runs: the threads are those of the whole process."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)

"""An exported file as a module: all runtimes have the same forward."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .metadata import ExportMetadata

# A function from a batch of images that the file takes to its scores.
Run = Callable[[Tensor], Tensor]


class ExportedModel(nn.Module):
    """An exported file, ready to run.

    Attributes:
        metadata (ExportMetadata): Description of the file.
        computes_in (str): Precision in which the runtime computes on this machine. OpenVINO computes float16 files in
            float32 on CPUs, and bfloat16 files too where the CPU has no instructions for bfloat16.
    """

    def __init__(self, path: Path, run: Run, metadata: ExportMetadata, computes_in: str = ''):
        super().__init__()
        self.path = path
        self.metadata = metadata
        self.computes_in = computes_in or metadata.precision
        self._run = run  # a module is registered here, and moves with this one
        self.training = False

    def train(self, mode: bool = True) -> 'ExportedModel':
        """Do nothing: a file is for inference only, and torch.export's modules raise an error here."""
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Run the file.

        Args:
            x: Images ``(N, 3, H, W)``, normalised float32. A file with preprocessing inside takes uint8 values of any
                dtype instead. N can be any number: for a file of a fixed batch size the last batch is padded.

        Returns:
            Tensor: Logits ``(N, classes)``, float32, or probabilities if ``metadata.softmax``.

        Raises:
            ValueError: If the file does not take images of this shape.
        """
        channels, sizes = self.metadata.channels, self.metadata.input_size
        has_size = self.metadata.dynamic_size or tuple(x.shape[2:]) == sizes
        if x.ndim != 4 or x.shape[1] != channels or not has_size:
            wanted = f'{channels}, H, W' if self.metadata.dynamic_size else ', '.join(map(str, (channels, *sizes)))
            raise ValueError(
                f'{self.path} takes images of the shape (N, {wanted}), got {tuple(x.shape)}; use a config whose test '
                'pipeline gives that, or export with this `input_size` or with `dynamic_size`'
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
    """Set the threads of the formats that PyTorch runs. They are those of the whole process."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)

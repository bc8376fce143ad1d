"""What int8 costs: the images to measure on, and the measures."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..data.samples import iterate_samples
from ..models.fake_quant import set_fake_quantization
from ..runtimes.exported_model import ExportedModel
from ..runtimes.network import ExportError
from ..runtimes.prepared import PreparedModel, normalise

BATCH_SIZE = 16
_HINT = '; --eval-samples 0 does without them'

# Inputs of a file (N, C, H, W) and labels (N,), None for training images without.
Batch = tuple[np.ndarray, Tensor | None]


class FileInputs:
    """Images of a split as the inputs of a file, in batches; read anew each time, since all may not fit in memory.

    Args:
        cfg: The config.
        split: ``'train'`` or ``'test'``.
        num_samples: How many at most; None: all.
        seed: Of the draw.
        prepared: What the file is made of.
    """

    def __init__(self, cfg: Config, split: str, num_samples: int | None, seed: int, prepared: PreparedModel):
        self.cfg = cfg
        self.split = split
        self.num_samples = num_samples
        self.seed = seed
        self.prepared = prepared

    def __iter__(self) -> Iterator[Batch]:
        metadata = self.prepared.metadata
        expected = (metadata.channels, *metadata.input_size)
        try:
            for images, labels in iterate_samples(
                self.cfg, self.split, self.num_samples, seed=self.seed, batch_size=BATCH_SIZE
            ):
                if tuple(images.shape[1:]) != expected:
                    raise ExportError(f'the {self.split} images must be {expected}, got {tuple(images.shape[1:])}')
                if labels is None and self.split == 'test':
                    raise ExportError(f'the test images of the config have no labels{_HINT}')
                inputs = images if metadata.with_preprocess else normalise(self.prepared.model, images)
                yield inputs.numpy(), labels
        except FileNotFoundError as error:
            hint = _HINT if self.split == 'test' else ''
            raise ExportError(f"the {self.split} data of the config can't be read ({error}){hint}") from error


@torch.no_grad()
def run_reference(prepared: PreparedModel, inputs: np.ndarray, *, simulate: bool) -> Tensor:
    """The logits that a file is compared with, for inputs of the file.

    Args:
        prepared: What the file is made of.
        inputs: ``(N, C, H, W)``.
        simulate: In the int8 that quantization-aware training simulates, instead of float32.
    """
    images = torch.from_numpy(inputs)
    if prepared.metadata.with_preprocess:
        images = normalise(prepared.model, images)
    if not simulate:
        return prepared.deployed(images)
    set_fake_quantization(prepared.model, enabled=True)
    try:
        return prepared.model(images)
    finally:
        set_fake_quantization(prepared.model, enabled=False)


def run_file(exported: ExportedModel) -> Callable[[np.ndarray], Tensor]:
    """A file as a function from its inputs to its scores."""
    return lambda inputs: exported(torch.from_numpy(inputs))


def measure_accuracy(run: Callable[[np.ndarray], Tensor | np.ndarray], batches: Iterable[Batch]) -> float:
    """Top-1 accuracy in percent of a function from inputs to scores ``(N, classes)``."""
    hits = total = 0
    for inputs, labels in batches:
        assert labels is not None
        hits += int((torch.as_tensor(run(inputs)).argmax(1) == labels).sum())
        total += len(labels)
    return 100 * hits / total


def measure_noise(expected: Tensor, got: Tensor) -> float:
    """Energy of the error relative to that of the scores; infinite if a score is not finite."""
    if not got.isfinite().all():
        return float('inf')
    return ((got - expected).square().sum() / expected.square().sum().clamp_min(1e-30)).item()

"""The accuracy of a file, and the images on which it is measured."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..data.samples import Samples
from ..measures.accuracy import Tally
from ..models.fake_quant import set_fake_quantization
from ..progress import track
from ..runtimes.loading import load_exported
from ..runtimes.network import ExportError
from ..runtimes.prepared import PreparedModel, normalise

BATCH_SIZE = 16
# Images of a split stay in memory up to this size. Larger splits are read again each time.
_MAX_BYTES = 2**30
_HINT = '; `eval_samples=0` does without them'

# Inputs of a file (N, C, H, W), and their labels (N,). Only training images may have None for labels.
Batch = tuple[np.ndarray, Tensor | None]
# A function from inputs (N, C, H, W) to scores (N, classes).
Run = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class FileInputs:
    """Batches of images as the inputs of a file. Each iteration reads them again."""

    split: str
    samples: Samples
    num_images: int
    seed: int
    prepared: PreparedModel

    def __iter__(self) -> Iterator[Batch]:
        metadata = self.prepared.metadata
        expected = (metadata.channels, *metadata.input_size)
        for images, labels in self.samples.iterate(self.num_images, seed=self.seed, batch_size=BATCH_SIZE):
            if tuple(images.shape[1:]) != expected:
                raise ExportError(f'the {self.split} images must be {expected}, got {tuple(images.shape[1:])}')
            if labels is None and self.split == 'test':
                raise ExportError(f'the test images of the config have no labels{_HINT}')
            inputs = images if metadata.with_preprocess else normalise(self.prepared.model, images)
            yield inputs.numpy(), labels


def read_inputs(
    cfg: Config, split: str, num_samples: int | None, *, seed: int, prepared: PreparedModel
) -> Iterable[Batch]:
    """Read images as the inputs of a file. If they are too large for memory, each iteration reads them again.

    Args:
        cfg: The config.
        split: ``'train'`` or ``'test'``. Test images must have labels.
        num_samples: Largest number of images; None for all.
        seed: Seed of the draw.
        prepared: The prepared model of the file.

    Raises:
        ValueError: If the data can't be found, is empty, or does not fit the file.
    """
    try:
        samples = Samples(cfg, split, prepared.metadata.classes)
    except FileNotFoundError as error:
        hint = _HINT if split == 'test' else ''
        raise ExportError(f"the {split} data of the config can't be read ({error}){hint}") from error
    num_images = len(samples) if num_samples is None else min(num_samples, len(samples))
    inputs = FileInputs(split, samples, num_images, seed, prepared)
    first, _ = next(iter(inputs))
    if first[0].nbytes * num_images > _MAX_BYTES:
        return inputs
    return list(track(inputs, f'reading {split} images', -(-num_images // BATCH_SIZE)))


@dataclass(frozen=True)
class Half:
    """Every other image of batches: the first, third, ... for ``start`` 0, the second, fourth, ... for 1."""

    batches: Iterable[Batch]
    start: int

    def __iter__(self) -> Iterator[Batch]:
        for inputs, labels in self.batches:
            if len(inputs) > self.start:
                yield inputs[self.start :: 2], None if labels is None else labels[self.start :: 2]


def get_images(prepared: PreparedModel, inputs: np.ndarray) -> Tensor:
    """The normalised images ``(N, C, H, W)`` of inputs of a file."""
    images = torch.from_numpy(inputs)
    return normalise(prepared.model, images) if prepared.metadata.with_preprocess else images


@torch.no_grad()
def run_reference(prepared: PreparedModel, inputs: np.ndarray, *, simulate: bool) -> Tensor:
    """Run the model with which a file is compared.

    Args:
        prepared: The prepared model of the file.
        inputs: Inputs of the file, ``(N, C, H, W)``.
        simulate: Whether to simulate int8 as quantization-aware training does, instead of float32.

    Returns:
        Tensor: Logits ``(N, classes)``.
    """
    images = get_images(prepared, inputs)
    if not simulate:
        return prepared.deployed(images)
    set_fake_quantization(prepared.model, enabled=True)
    try:
        return prepared.model(images)
    finally:
        set_fake_quantization(prepared.model, enabled=False)


def load_file(path: Path) -> Run:
    """Load a file as a function from its inputs to its scores."""
    exported = load_exported(path)
    return lambda inputs: exported(torch.from_numpy(inputs))


def measure_accuracy(run: Run, batches: Iterable[Batch]) -> float:
    """Top-1 accuracy in percent."""
    tally = Tally()
    for inputs, labels in batches:
        assert labels is not None
        tally.add(run(inputs), labels)
    return tally.percent


def compare(run: Run, reference: Run, batches: Iterable[Batch]) -> tuple[Tally, Tally, Tally]:
    """Compare a file with its reference.

    Returns:
        tuple[Tally, Tally, Tally]: How often both agree, how often the file is right, and how often the reference is
            right. The last two count images with labels only.
    """
    agreeing, right, right_reference = Tally(), Tally(), Tally()
    for inputs, labels in batches:
        scores, expected = run(inputs), reference(inputs)
        agreeing.add(scores, expected)
        if labels is not None:
            right.add(scores, labels)
            right_reference.add(expected, labels)
    return agreeing, right, right_reference

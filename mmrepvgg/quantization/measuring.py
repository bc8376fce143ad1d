"""What int8 costs: the images to measure on, and the measures."""

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
# More than this of a split is not kept in memory, and read anew each time.
_MAX_BYTES = 2**30
_HINT = '; `eval_samples=0` does without them'

# Inputs of a file (N, C, H, W) and labels (N,), None for training images without.
Batch = tuple[np.ndarray, Tensor | None]
# Inputs of a file -> its scores, or the logits that it is compared with: (N, classes).
Run = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class FileInputs:
    """Images of a split of a config's data as the inputs of a file, in batches, read anew each time."""

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
    """Read images as the inputs of a file; those that memory does not hold, only the first ones, and anew each time.

    Args:
        cfg: The config.
        split: ``'train'`` or ``'test'``, whose images must have labels.
        num_samples: How many images at most; None: all.
        seed: Of the draw.
        prepared: What the file is made of.

    Raises:
        ValueError: If there are no such data, no images in them, or such that do not fit.
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


def load_file(path: Path) -> Run:
    """A file as a function from its inputs to its scores."""
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
    """How often a file agrees with its reference, and how often each of them is right, on images that have labels."""
    agreeing, right, right_reference = Tally(), Tally(), Tally()
    for inputs, labels in batches:
        scores, expected = run(inputs), reference(inputs)
        agreeing.add(scores, expected)
        if labels is not None:
            right.add(scores, labels)
            right_reference.add(expected, labels)
    return agreeing, right, right_reference

"""What int8 costs: the images to measure on, and the measures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..data.samples import iterate_samples
from ..measures.accuracy import Tally
from ..models.fake_quant import set_fake_quantization
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
    """Images of a split as the inputs of a file, in batches, read anew each time.

    Attributes:
        cfg: The config.
        split: ``'train'`` or ``'test'``.
        num_samples: How many at most; None: all.
        seed: Of the draw.
        prepared: What the file is made of.
    """

    cfg: Config
    split: str
    num_samples: int | None
    seed: int
    prepared: PreparedModel

    def __iter__(self) -> Iterator[Batch]:
        metadata = self.prepared.metadata
        expected = (metadata.channels, *metadata.input_size)
        try:
            for images, labels in iterate_samples(
                self.cfg,
                self.split,
                self.num_samples,
                trained=metadata.classes,
                seed=self.seed,
                batch_size=BATCH_SIZE,
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


def keep_in_memory(batches: Iterable[Batch]) -> Iterable[Batch]:
    """A list of ``batches``, which is gone through in no time; ``batches`` themselves if there are too many."""
    kept, size = [], 0
    for batch in batches:
        kept.append(batch)
        size += batch[0].nbytes
        if size > _MAX_BYTES:
            return batches
    return kept


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


@dataclass(frozen=True)
class Comparison:
    """A file against its reference.

    Attributes:
        accuracy_reference: Top-1 of the reference in percent; None without labels.
        accuracy: That of the file.
        agreement: Percentage of images to which both give the same label.
        num_images: On how many images that was measured.
    """

    accuracy_reference: float | None
    accuracy: float | None
    agreement: float
    num_images: int


def compare(run: Run, reference: Run, batches: Iterable[Batch]) -> Comparison:
    """Run a file and its reference on the same images, which have labels all or none."""
    agreeing, right, right_reference = Tally(), Tally(), Tally()
    for inputs, labels in batches:
        scores, expected = run(inputs), reference(inputs)
        agreeing.add(scores, expected)
        if labels is not None:
            right.add(scores, labels)
            right_reference.add(expected, labels)
    has_labels = right.num_images == agreeing.num_images
    return Comparison(
        right_reference.percent if has_labels else None,
        right.percent if has_labels else None,
        agreeing.percent,
        agreeing.num_images,
    )

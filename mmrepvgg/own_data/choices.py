"""The settings of a training that follow from the images and the weights. Imports no torch."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Multiples of 32, by which the network divides the size.
_SIZES = (32, 64, 96, 128, 160, 192, 224)
# From here on images are enlarged and cut for tests, as ImageNet's.
_CUT_FROM = 128
_MAX_BATCH, _MIN_BATCH = 64, 8
_NUM_VALIDATIONS = 20


@dataclass(frozen=True)
class Choices:
    """Settings of a training, each with its reason in words.

    Attributes:
        size: Height and width of the network's input, in pixels.
        short_edge: To what the short edge of a test image is resized, before the middle is cut out, as an expression.
        size_reason: Why.
        batch_size: Training images of a step.
        steps: Steps of an epoch.
        epochs: Number of epochs.
        epochs_reason: Why.
        lr: Learning rate of that batch size.
        lr_reason: Why.
        interval: Epochs from one validation to the next.
    """

    size: int
    short_edge: str
    size_reason: str
    batch_size: int
    steps: int
    epochs: int
    epochs_reason: str
    lr: float
    lr_reason: str
    interval: int


def choose_settings(short_edges: Sequence[int], num_images: int, fine_tunes: bool) -> Choices:
    """Choose the settings for training images.

    Args:
        short_edges: The short edge of each, in pixels.
        num_images: How many there are.
        fine_tunes: Whether the training starts with trained weights.
    """
    median = round(statistics.median(short_edges))
    # a tenth more than the images have loses nothing
    size = max([each for each in _SIZES if each <= 1.1 * median] or _SIZES[:1])
    told = f'Pixels. The short edge of half of the images has {median} or more'
    if size == _SIZES[-1]:
        told += '; this is the size of ImageNet'
    elif size > median:
        told += '; this is the smallest size'
    batch_size = _MIN_BATCH
    while batch_size < _MAX_BATCH and batch_size * 2 * 20 <= num_images:
        batch_size *= 2
    batch_size = min(batch_size, num_images)
    steps = num_images // batch_size
    wanted, least, most = (2000, 10, 60) if fine_tunes else (5000, 30, 120)
    epochs = min(max(round(wanted / steps), least), most)
    interval = -(-epochs // _NUM_VALIDATIONS)
    epochs = -(-epochs // interval) * interval
    if fine_tunes:
        told_epochs, lr = 'trained weights need few of them', 0.01
        told_lr = 'A fifth of the learning rate for random weights, which is 0.05 for 64 images a step.'
    else:
        told_epochs, lr = 'random weights need many of them', 0.05
        told_lr = '0.05 for 64 images a step.'
    return Choices(
        size=size,
        short_edge='size * 8 // 7' if size >= _CUT_FROM else 'size',
        size_reason=f'{told}.',
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        epochs_reason=f'{epochs} epochs of {steps} steps are {epochs * steps:,} steps: {told_epochs}.',
        lr=lr * batch_size / _MAX_BATCH,
        lr_reason=told_lr,
        interval=interval,
    )

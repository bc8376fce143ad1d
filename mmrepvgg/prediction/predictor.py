"""The best classes of images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from torch import Tensor, nn

from ..data.images import ImageReader, UnreadableImageError, iterate_batches
from ..progress import track
from ..runtimes.classifier import load_classifier
from ..runtimes.table import is_exported


@dataclass(frozen=True)
class RankedClass:
    """One of the best classes of an image.

    Attributes:
        label: Its index.
        name: Its name.
        score: Its probability.
    """

    label: int
    name: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    Attributes:
        image: The file.
        classes: The best classes, best first; none if the image can't be read.
        error: Why it can't be read, or has no prediction.
    """

    image: Path
    classes: tuple[RankedClass, ...] = ()
    error: str = ''


class Predictor:
    """A checkpoint or an exported file that takes image files.

    Args:
        cfg: The config, whose test pipeline reads the images.
        weights: A checkpoint in either form, or a file of ``export_model``.
        topk: How many classes to give; all of a model that has fewer.
        batch_size: How many images to take at once.

    Raises:
        As :func:`~mmrepvgg.runtimes.classifier.load_classifier`.
    """

    def __init__(self, cfg: Config, weights: str | Path, topk: int = 5, batch_size: int = 16):
        if topk < 1 or batch_size < 1:
            raise ValueError(f'`topk` and `batch_size` must be at least 1, got {topk} and {batch_size}')
        self.topk = topk
        self.batch_size = batch_size
        self._read = ImageReader(cfg)
        self._model: Any = load_classifier(cfg, weights)
        if not is_exported(weights):  # an exported file has a runtime of its own
            self._model.to(get_device())

    @torch.inference_mode()
    def predict(
        self, paths: Sequence[str | Path], callback: Callable[[int, Prediction], None] | None = None
    ) -> list[Prediction]:
        """Predict images, and show the progress on stderr.

        Args:
            paths: The files.
            callback: Is called with an image's place in ``paths`` and its prediction as soon as that is there.

        Returns:
            list[Prediction]: One for each of ``paths``, in their order; unreadable images are among them.
        """
        files = [Path(path) for path in paths]
        predictions: dict[int, Prediction] = {}

        def keep(number: int, prediction: Prediction) -> None:
            predictions[number] = prediction
            if callback is not None:
                callback(number, prediction)

        def read() -> Iterator[tuple[int, dict[str, Any]]]:
            for number, path in enumerate(track(files, 'predicting')):
                try:
                    yield number, self._read(path)
                except UnreadableImageError as error:
                    keep(number, Prediction(path, error=str(error)))

        for batch in iterate_batches(read(), self.batch_size):
            outputs = self._model.test_step(pseudo_collate([sample for _, sample in batch]))
            names = get_class_names(self._model, len(outputs[0].pred_score))
            for (number, _), output in zip(batch, outputs, strict=True):
                if output.pred_score.isfinite().all():
                    keep(number, Prediction(files[number], self._rank(output.pred_score, names)))
                else:
                    keep(number, Prediction(files[number], error='the model gives scores that are not finite'))
        return [predictions[number] for number in range(len(files))]

    def _rank(self, scores: Tensor, names: Sequence[str]) -> tuple[RankedClass, ...]:
        best = scores.float().topk(min(self.topk, len(scores)))
        return tuple(
            RankedClass(label, names[label], score)
            for label, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )


def get_class_names(model: nn.Module, num_classes: int) -> Sequence[str]:
    """The names that came with the weights; else ImageNet's, for 1000 classes; else the indices."""
    names = (getattr(model, '_dataset_meta', None) or {}).get('classes') or ()
    if not names and num_classes == len(IMAGENET_CATEGORIES):
        names = IMAGENET_CATEGORIES
    # trained on fewer classes than the head has, or with a list of other classes
    return [*names[:num_classes], *map(str, range(len(names), num_classes))]

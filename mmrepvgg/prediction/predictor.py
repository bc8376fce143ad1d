"""Predict the best classes of images."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.dist import get_dist_info, is_main_process
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from torch import Tensor, nn

from ..data.images import ImageReader, UnreadableImageError, iterate_batches
from ..engine.launchers import gather_dicts, join_processes
from ..progress import track
from ..runtimes.classifier import load_classifier
from ..runtimes.table import is_exported


@dataclass(frozen=True)
class RankedClass:
    """One of the best classes of an image.

    Attributes:
        label: Index of the class.
        name: Name of the class.
        score: Probability of the class.
    """

    label: int
    name: str
    score: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: classes, or an error.

    Attributes:
        image: Path of the image.
        classes: Best classes, best first.
        error: Reason why the image has no prediction, or an empty string.
    """

    image: Path
    classes: tuple[RankedClass, ...] = ()
    error: str = ''


class Predictor:
    """Predicts the classes of image files, with a checkpoint or an exported file.

    Args:
        cfg: The config. Its test pipeline reads the images.
        weights: A checkpoint in either form, or a file of ``export_model``.
        topk: Largest number of classes for an image, at least 1.
        batch_size: Largest number of images that the model takes at once, at least 1.
        launcher: Way in which the processes were started: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Each
            process predicts its share of the images.
        num_threads: As for ``load_classifier``.

    Raises:
        ValueError: If ``topk`` or ``batch_size`` is below 1, if the model can't be used for prediction, or if this
            process was not started as ``launcher`` says.
        CheckpointError: If ``weights`` can't be read safely, or does not fit the config.
    """

    def __init__(
        self,
        cfg: Config,
        weights: str | Path,
        topk: int = 5,
        batch_size: int = 16,
        *,
        launcher: str = 'none',
        num_threads: int | None = None,
    ):
        if topk < 1 or batch_size < 1:
            raise ValueError(f'`topk` and `batch_size` must be at least 1, got {topk} and {batch_size}')
        join_processes(launcher)
        self.topk = topk
        self.batch_size = batch_size
        self._read = ImageReader(cfg)
        self._model: Any = load_classifier(cfg, weights, num_threads=num_threads)
        if not is_exported(weights):  # an exported file has a runtime of its own
            self._model.to(get_device())

    @torch.inference_mode()
    def predict(
        self, paths: Sequence[str | Path], callback: Callable[[int, Prediction], None] | None = None
    ) -> list[Prediction]:
        """Predict images, and show the progress on stderr.

        Args:
            paths: Image files; in several processes, the same in each.
            callback: Function that is called for each image as soon as it is predicted, with its place in ``paths`` and
                its prediction. In several processes, it is called where the image is predicted.

        Returns:
            list[Prediction]: Prediction for each of ``paths``, in their order, also for images that can't be read. In
            several processes, the main one gets them, and the others get those of their own images.

        Raises:
            TypeError: If ``paths`` is one path.
        """
        if isinstance(paths, str | os.PathLike):
            raise TypeError(f'`paths` must be a list of image files, got {paths!r}')
        files = [Path(path) for path in paths]
        rank, num_processes = get_dist_info()
        own = range(rank, len(files), num_processes)
        predictions: dict[int, Prediction] = {}

        def keep(number: int, prediction: Prediction) -> None:
            predictions[number] = prediction
            if callback is not None:
                callback(number, prediction)

        def read() -> Iterator[tuple[int, dict[str, Any]]]:
            # all processes have as many images, up to one
            for number in track(own, 'predicting') if is_main_process() else own:
                try:
                    yield number, self._read(files[number])
                except UnreadableImageError as error:
                    keep(number, Prediction(files[number], error=str(error)))

        for batch in iterate_batches(read(), self.batch_size):
            outputs = self._model.test_step(pseudo_collate([sample for _, sample in batch]))
            names = get_class_names(self._model, len(outputs[0].pred_score))
            for (number, _), output in zip(batch, outputs, strict=True):
                if output.pred_score.isfinite().all():
                    keep(number, Prediction(files[number], rank_classes(output.pred_score, names, self.topk)))
                else:
                    keep(number, Prediction(files[number], error='the model gives scores that are not finite'))
        return [prediction for _, prediction in sorted(gather_dicts(predictions).items())]


def get_class_names(model: nn.Module, num_classes: int) -> Sequence[str]:
    """Names of the classes: those in the weights, or ImageNet's for 1000 classes, or the indices."""
    names = (getattr(model, '_dataset_meta', None) or {}).get('classes') or ()
    if not names and num_classes == len(IMAGENET_CATEGORIES):
        names = IMAGENET_CATEGORIES
    # the head may have more classes than there are names: the others are named by their indices
    return [*names[:num_classes], *map(str, range(len(names), num_classes))]


def rank_classes(scores: Tensor, names: Sequence[str], topk: int) -> tuple[RankedClass, ...]:
    """The ``topk`` best classes of scores ``(classes,)``, best first."""
    best = scores.float().topk(min(topk, len(scores)))
    return tuple(
        RankedClass(label, names[label], score)
        for label, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )
